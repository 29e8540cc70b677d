"""Weights in a serial flash, whose far end is simulated: fetched before each layer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError
from hardware.fpga.driver import Driver
from hardware.fpga.far import BLOCK, FAR_BASE, moved
from hardware.fpga.program import Program, Size
from hardware.fpga.simulated import SimulatedEngine
from hardware.fpga.sources import build_of
from tests.hardware.fpga.networks import SIZE, add_one, codes, expected, twice


@pytest.fixture
def program() -> Program:
    """Two layers, whose weights lie one after the other."""
    return moved(twice(add_one()))


@pytest.fixture
def engine(program: Program, models: Path) -> Iterator[SimulatedEngine]:
    made = SimulatedEngine(Size.of(program), cache_folder=models, far=program.far, is_quick=True)
    yield made
    made.close()


def test_each_layer_fetches_its_weights(program: Program, engine: SimulatedEngine) -> None:
    driver = Driver(engine, program, build=build_of(Size.of(program), is_far=True))
    np.testing.assert_array_equal(driver.run(codes()), expected(expected(codes()) * -1))


def test_the_engine_keeps_one_layers_weights(program: Program) -> None:
    assert (len(program.weights), program.weight_words) == (0, 1)
    assert len(program.far) == 2 * BLOCK


def test_a_flash_with_other_weights_is_refused(program: Program, engine: SimulatedEngine) -> None:
    engine.write_flash(FAR_BASE + BLOCK, b"\x07")
    with pytest.raises(DeviceError, match="does not hold the network's weights"):
        Driver(engine, program)


def test_an_engine_without_a_flash_is_refused(program: Program, models: Path) -> None:
    near = SimulatedEngine(SIZE, cache_folder=models, is_quick=True)
    try:
        with pytest.raises(DeviceError, match="Another bitstream is in the FPGA"):
            Driver(near, program, build=build_of(Size.of(program), is_far=True))
    finally:
        near.close()
