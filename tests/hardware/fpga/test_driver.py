"""The driver runs networks on the very gateware, and says what is wrong where it cannot."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.driver import Driver
from hardware.fpga.simulated import SimulatedEngine
from hardware.fpga.sources import build_of
from tests.hardware.fpga.networks import SIZE, add_one, codes, expected, twice


@pytest.fixture
def engine(models: Path) -> Iterator[SimulatedEngine]:
    made = SimulatedEngine(SIZE, cache_folder=models, is_quick=True)
    yield made
    made.close()


def test_answers_what_the_layer_computes(engine: SimulatedEngine) -> None:
    driver = Driver(engine, add_one(), build=build_of(SIZE))
    for seed in range(3):
        np.testing.assert_array_equal(driver.run(codes(seed)), expected(codes(seed)))
    assert driver.cycles > codes().size


def test_another_build_is_refused(engine: SimulatedEngine) -> None:
    with pytest.raises(DeviceError, match="Another bitstream is in the FPGA"):
        Driver(engine, add_one(), build="0" * 32)


def test_a_network_that_is_larger_than_the_engine_is_refused(engine: SimulatedEngine) -> None:
    with pytest.raises(DeviceError, match="not one for this network"):
        Driver(engine, replace(add_one(), activation_words=1000))


def test_a_damaged_program_is_said_by_the_engine(engine: SimulatedEngine) -> None:
    damaged = bytes(72)
    driver = Driver(engine, replace(add_one(), program=damaged))
    with pytest.raises(DeviceError, match="its program is damaged"):
        driver.run(codes())


def test_a_network_damaged_in_the_engine_is_loaded_again(engine: SimulatedEngine) -> None:
    driver = Driver(engine, add_one())
    engine.write(at.MEMORIES["program"], np.zeros(1, np.uint32))
    np.testing.assert_array_equal(driver.run(codes()), expected(codes()))


def test_a_network_that_another_driver_loaded_meanwhile_does_not_answer_for_it(
    engine: SimulatedEngine,
) -> None:
    """As where a release is tested on the FPGA that another one runs on, or comes back."""
    first, second = Driver(engine, twice(add_one())), Driver(engine, add_one())
    wanted = np.minimum(1 - expected(codes()), 127)
    for _ in range(2):
        np.testing.assert_array_equal(first.run(codes()), wanted)
        np.testing.assert_array_equal(second.run(codes()), expected(codes()))


def test_an_engine_that_hangs_is_stopped_and_named(engine: SimulatedEngine) -> None:
    # 32,767 rows of as many pixels: no end in the time that is given.
    words = np.frombuffer(add_one().program, "<u4").copy()
    words[6] = 0x7FFF7FFF
    driver = Driver(engine, replace(add_one(), program=words.tobytes()), timeout_s=0.01)
    with pytest.raises(DeviceError, match="hangs"):
        driver.run(codes())
    again = Driver(engine, add_one())  # its start stops what runs
    np.testing.assert_array_equal(again.run(codes()), expected(codes()))


def test_writing_while_it_runs_is_an_error_and_changes_nothing(engine: SimulatedEngine) -> None:
    words = np.frombuffer(add_one().program, "<u4").copy()
    words[6] = 0x7FFF7FFF
    Driver(engine, replace(add_one(), program=words.tobytes()))
    engine.write(at.CONTROL, np.array([at.START], np.uint32))
    engine.write(at.MEMORIES["weights"], np.array([7], np.uint32))
    status = int(engine.read(at.STATUS, 1)[0])
    assert status & at.BUSY
    assert status >> at.ERROR_SHIFT == 2
    engine.write(at.CONTROL, np.array([at.STOP], np.uint32))
    assert engine.read(at.MEMORIES["weights"], 1)[0] == 0x01010101
