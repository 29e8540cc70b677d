"""Runs a program on the engine's Verilog in Verilator, and compares it with the integer model."""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from edgeml.errors import ToolchainError
from hardware.fpga.driver import Driver
from hardware.fpga.program import Program, Size
from hardware.fpga.simulated import SimulatedEngine

_HUNG_S = 600.0  # real nets take many seconds, and more where the machine has other work


@dataclass(frozen=True, eq=False)
class Simulated:
    """What the gateware computed, int64[samples, height, width, channels], and its clocks."""

    codes: np.ndarray
    cycles: int


def simulate(
    program: Program, codes: np.ndarray, *, size: Size | None = None, folder: Path | None = None
) -> Simulated:
    """Run every sample's codes, int64[samples, height, width, channels], through the gateware.

    The first runs alone, and its clocks count; the others as a device has them, each written while
    the one before it is computed.

    Args:
        program: the network.
        codes: of its input.
        size: of the engine; the smallest that holds the program by default.
        folder: where the compiled model is kept; the user's cache by default.

    Raises:
        DeviceError: Verilator is missing, or the gateware hangs.
    """
    engine = SimulatedEngine(size or Size.of(program), cache_folder=folder, far=program.far)
    try:
        driver = Driver(engine, program, timeout_s=_HUNG_S)
        first, *others = np.asarray(codes, np.int64)
        made, cycles = [driver.run(first)], driver.cycles
        made += driver.stream(others)
        return Simulated(codes=np.stack(made), cycles=cycles)
    finally:
        engine.close()


def require_programs(*names: str) -> None:
    """Check that programs which simulate gateware are on PATH: `verilator`, `g++`.

    Raises:
        ToolchainError: one is not.
    """
    if missing := [name for name in names if shutil.which(name) is None]:
        raise ToolchainError(
            "Gateware cannot be simulated here.",
            why=f"There is no program {' and no program '.join(missing)}.",
            fix=f"Install what is missing (Debian: apt-get install {' '.join(names)}).",
        )


@cache
def version() -> str:
    """Verilator's."""
    command = ["verilator", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    return (said.split() or ["", "unknown"])[1]
