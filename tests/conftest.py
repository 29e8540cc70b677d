"""What all tests share: nothing of this user's caches and toolchains decides on them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Toolchains that tests install are kept for the next run, apart from the user's own.
_KEPT = Path(
    os.environ.setdefault(
        "EDGEML_TEST_TOOLCHAINS", str(Path.home() / ".cache/edgeml-tests/toolchains")
    )
)

os.environ["EDGEML_CACHE"] = ""
os.environ["EDGEML_TOOLCHAINS"] = os.devnull


@pytest.fixture(scope="module")
def kept_toolchains() -> Iterator[Path]:
    """The folder of toolchains that tests install; elsewhere none is installed."""
    os.environ["EDGEML_TOOLCHAINS"] = str(_KEPT)
    yield _KEPT
    os.environ["EDGEML_TOOLCHAINS"] = os.devnull
