"""What the tests of the gateware share: where Verilator's models are kept between them."""

from pathlib import Path

import pytest

from tests import needs


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of compiled models."""
    needs.program("verilator", "verilator")
    needs.program("g++", "g++")
    return tmp_path_factory.mktemp("verilated")
