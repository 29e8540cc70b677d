"""Runs a program on the engine's Verilog in Verilator, and compares it with the integer model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hardware.fpga.driver import Driver
from hardware.fpga.program import Program, Size
from hardware.fpga.simulated import SimulatedEngine


@dataclass(frozen=True, eq=False)
class Simulated:
    """What the gateware computed, int64[samples, height, width, channels], and its clocks."""

    codes: np.ndarray
    cycles: int


def simulate(
    program: Program, codes: np.ndarray, *, size: Size | None = None, folder: Path | None = None
) -> Simulated:
    """Run every sample's codes, int64[samples, height, width, channels], through the gateware.

    Args:
        program: the network.
        codes: of its input.
        size: of the engine; the smallest that holds the program by default.
        folder: where the compiled model is kept; the user's cache by default.

    Raises:
        DeviceError: Verilator is missing, or the gateware hangs.
    """
    engine = SimulatedEngine(size or Size.of(program), cache_folder=folder)
    try:
        driver = Driver(engine, program)
        made = [driver.run(sample) for sample in np.asarray(codes, np.int64)]
        return Simulated(codes=np.stack(made), cycles=driver.cycles)
    finally:
        engine.close()
