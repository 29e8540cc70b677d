"""Toolchains that tests use: installed where they are not, and kept for the next run."""

import os
import re
from pathlib import Path

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


def named_log(sentence: str) -> str:
    """What the log holds whose path an error names."""
    found = re.search(r"Its log is (\S+\.log)\.", sentence)
    assert found is not None, sentence
    return Path(found[1]).read_text()
