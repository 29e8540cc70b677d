"""Boards as data, `hardware/fpga/boards/*.toml`: which FPGA, its pins, its clock, the way to it."""

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from edgeml.errors import TargetError


class Resources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the FPGA has; memories in blocks, and the bits of one."""

    luts: int
    flip_flops: int
    dsp: int
    bram: int
    bram_bits: int
    spram: int = 0
    spram_bits: int = 0


class Board(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A board; `pins` are the FPGA's, by the names of the engine's ports.

    The transport `uart` needs the pins rx and tx, `spi` sck, cs_n, mosi and miso; both clock.
    `flash` are the pins sck, cs_n, mosi and miso of a serial flash that weights may be in;
    `standards` of pins are those that are not LVCMOS33.
    """

    name: str
    description: str
    family: Literal["ecp5", "ice40", "gowin"]
    part: str
    package: str
    speed: str = ""
    clock_mhz: float
    transport: Literal["uart", "spi"]
    baud: int = 1_000_000
    programmer: str = ""
    pins: dict[str, str]
    flash: dict[str, str] = {}
    standards: dict[str, str] = {}
    resources: Resources

    def multiple_of(self, clock_mhz: float) -> int:
        """By what a PLL multiplies the board's clock to come near, not over, the one asked for.

        1 where the engine runs on the board's own.
        """
        if self.family != "ecp5":
            return 1
        return max(1, int(clock_mhz / self.clock_mhz))

    def clock_at(self, clock_mhz: float) -> float:
        """The clock, in MHz, that the engine has where so much is asked for."""
        return self.clock_mhz * self.multiple_of(clock_mhz)


@cache
def boards() -> dict[str, Board]:
    """Every board of ours by name."""
    folder = files("hardware.fpga") / "boards"
    found = [
        msgspec.convert(tomllib.loads(file.read_text("utf-8")), Board)
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    ]
    return {board.name: board for board in sorted(found, key=lambda board: board.name)}


def find(name: str) -> Board:
    """A board by its name, or by the path of a file like ours.

    Raises:
        TargetError: there is none, or the file does not describe one.
    """
    if name in boards():
        return boards()[name]
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        try:
            return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Board)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise TargetError(
                f"{path} does not describe a board.",
                why=f"{error}.",
                fix="Compare it with docs/fpga-engine.md.",
            ) from error
    raise TargetError(
        f"There is no board {name}.",
        why=f"Known are: {', '.join(boards())}.",
        fix="Name one of them, or a board file (docs/fpga-engine.md).",
    )
