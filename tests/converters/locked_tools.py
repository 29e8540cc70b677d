"""Toolchains that tests use: installed where they are not, and kept for the next run."""

import os

import pytest

from converters.toolchains import store
from edgeml.errors import ToolchainError


def prepared(name: str) -> store.Installed:
    """The toolchain; a test that asks for one needs the fixture `kept_toolchains`."""
    try:
        return store.install(name)
    except ToolchainError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"the toolchain {name} cannot be installed here: {error}")
