"""What all tests share: nothing of this user's caches and toolchains decides on them."""

import gc
import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests import network

# Toolchains that tests install are kept for the next run, apart from the user's own.
_KEPT = Path(
    os.environ.setdefault(
        "EDGEML_TEST_TOOLCHAINS", str(Path.home() / ".cache/edgeml-tests/toolchains")
    )
)

# How long an example takes says how busy the machine is.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell's background job is started with SIGINT ignored, and so would the programs be that it
# starts; a handler of one's own they do not inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Verilator's makefile takes it: most of a small model is Verilator's own run time, the same in all.
if shutil.which("ccache"):
    os.environ.setdefault("OBJCACHE", "ccache")

os.environ["EDGEML_CACHE"] = ""
os.environ["EDGEML_LOGS"] = str(_KEPT.parent / "logs")
os.environ["EDGEML_TOOLCHAINS"] = os.devnull


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What stays until the end is not searched for garbage: that took a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="module")
def kept_toolchains() -> Iterator[Path]:
    """The folder of toolchains that tests install; elsewhere none is installed."""
    os.environ["EDGEML_TOOLCHAINS"] = str(_KEPT)
    yield _KEPT
    os.environ["EDGEML_TOOLCHAINS"] = os.devnull


@pytest.fixture(autouse=True)
def same_draws(request: pytest.FixtureRequest) -> None:
    """A module's generator `RNG` begins anew, so that a test draws the same wherever it runs."""
    drawn = getattr(request.module, "RNG", None) if hasattr(request, "module") else None
    if isinstance(drawn, np.random.Generator):
        bits = drawn.bit_generator
        bits.state = type(bits)(bits.seed_seq).state  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def steady_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """No other test changes the network under a browser."""
    if {"browser", "page"}.isdisjoint(request.fixturenames):
        yield
        return
    with network.steady():
        yield
