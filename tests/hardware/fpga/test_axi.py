"""An engine on AXI4-Lite, whose manager is irregular and watches that the standard is kept."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hardware.fpga import registers as at
from hardware.fpga.driver import Driver
from hardware.fpga.simulated import SimulatedEngine
from hardware.fpga.sources import build_of
from tests.hardware.fpga.networks import SIZE, add_one, codes, expected, in_two_banks, slow


@pytest.fixture
def engine(models: Path) -> Iterator[SimulatedEngine]:
    made = SimulatedEngine(SIZE, cache_folder=models, is_axi=True, is_quick=True)
    yield made
    made.close()


def test_a_network_runs_over_axi(engine: SimulatedEngine) -> None:
    driver = Driver(engine, add_one(), build=build_of(SIZE))
    for seed in range(2):
        np.testing.assert_array_equal(driver.run(codes(seed)), expected(codes(seed)))


def test_samples_overlap_over_axi(engine: SimulatedEngine) -> None:
    driver = Driver(engine, in_two_banks(slow(add_one())))
    samples = [codes(seed) for seed in range(4)]
    for sample, answer in zip(samples, driver.stream(samples), strict=True):
        np.testing.assert_array_equal(answer, expected(sample))


def test_a_write_of_a_part_of_a_word_is_refused_and_changes_nothing(
    engine: SimulatedEngine,
) -> None:
    write_bytes = engine._library.engine_write_bytes  # what no transport offers
    write_bytes.argtypes = [ctypes.c_void_p] + [ctypes.c_uint32] * 3
    engine.write(at.SCRATCH, np.array([0x12345678], np.uint32))
    assert not write_bytes(engine._engine, at.SCRATCH, 0xFFFFFFFF, 0b0011)
    assert engine.read(at.SCRATCH, 1)[0] == 0x12345678
