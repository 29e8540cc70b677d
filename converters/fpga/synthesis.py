"""From Verilog to a bitstream, with the open tools of `fpga-open`, for Gowin of `fpga-gowin`.

Timing is a gate: nextpnr is never told to let it fail. Each placer seed gives a result of its own,
and the quickest one's bitstream is kept. The same request gives the same bytes, so that every step
that was finished is kept by what it was made from: what is stopped goes on from there.
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec

from converters.fpga import commands
from converters.fpga.commands import JSON, NETLIST
from converters.fpga.design import Design
from converters.fpga.gowin_timing import fmax_mhz
from converters.fpga.top import PINS, write_sources
from converters.toolchains.definition import find
from converters.toolchains.exchange import ask
from converters.toolchains.store import Installed, require
from edgeml.errors import TargetError, ToolchainError
from hardware.fpga.board import Board

TOOLCHAIN = commands.toolchain_of("")
_TIMEOUT_S = 3600


class Keeper(Protocol):
    """Keeps what was finished: `converters.cache.Cache`."""

    def get(self, kind: str, parts: Any) -> bytes | None:
        """What was made from these parts, or None."""
        ...

    def put(self, kind: str, parts: Any, body: bytes) -> None:
        """Keep what was made from these parts."""
        ...


class Forgetful:
    """Keeps nothing."""

    def get(self, kind: str, parts: Any) -> bytes | None:
        """Nothing is there."""
        del kind, parts
        return None

    def put(self, kind: str, parts: Any, body: bytes) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class Timing:
    """What one placement reached."""

    seed: int
    fmax_mhz: float


@dataclass(frozen=True)
class Placed:
    """A bitstream, how it was made and what it takes of the FPGA."""

    bitstream: Path
    sha256: str
    requested_mhz: float
    timing: tuple[Timing, ...]
    used: dict[str, int]
    available: dict[str, int]

    @property
    def fmax_mhz(self) -> float:
        """Of the bitstream."""
        return max(timing.fmax_mhz for timing in self.timing)


@dataclass(frozen=True, eq=False)
class Synthesis:
    """One design on its way to a board, a step after the other.

    Args:
        design: what is synthesised.
        board: which FPGA and pins.
        folder: where all files go.
        clock_mhz: the clock that placement must meet; the board's own if 0, never less.
        keeper: of finished steps.
        say: told what is being done.
    """

    design: Design
    board: Board
    folder: Path
    clock_mhz: float = 0.0
    keeper: Keeper = field(default_factory=Forgetful)
    say: Callable[[str], None] = lambda _: None

    @property
    def requested_mhz(self) -> float:
        """The clock that placement must meet."""
        return max(self.clock_mhz, self.board.clock_mhz)

    @cached_property
    def sources(self) -> list[str]:
        """The Verilog, written."""
        return write_sources(self.design, self.board, self.folder, clock_mhz=self.requested_mhz)

    @property
    def tools(self) -> dict[str, str]:
        """The toolchain's packages and their versions."""
        return dict(package.split("==", 1) for package in find(self._toolchain_name).packages)

    @property
    def environment(self) -> Path:
        """The virtual environment that the tools are in."""
        return self._toolchain.folder / "venv"

    def netlist(self) -> Path:
        """Map the Verilog to the FPGA's cells.

        Raises:
            ToolchainError: the toolchain is missing or fails.
        """
        command = commands.synthesise(self.board, self.design, self.sources)
        self._required(
            "Synthesising with Yosys", command, self.sources, (JSON, NETLIST),
            "Yosys cannot synthesise the gateware.",
        )  # fmt: skip
        return self.folder / NETLIST

    def bitstream(self, seeds: Sequence[int] = (1,)) -> Placed:
        """Place and route the netlist, once for each seed, and pack the quickest.

        Raises:
            TargetError: the design does not fit, or no placement meets the clock.
            ToolchainError: the toolchain is missing or fails.
        """
        timing: list[Timing] = []
        reports: dict[int, dict[str, Any]] = {}
        refused = ""
        for seed in seeds:
            command = commands.place(self.board, seed, self.requested_mhz)
            said = f"Placing and routing with seed {seed}"
            made = commands.placement_of(self.board, seed)
            if complaint := self._step(said, command, (JSON, PINS), made):
                refused = f"nextpnr says: {complaint}"
                continue
            reports[seed] = msgspec.json.decode((self.folder / made[0]).read_bytes())
            fmax = self._fmax_mhz(reports[seed], seed)
            if fmax < self.requested_mhz:
                refused = f"Its slowest path allows {fmax:.1f} MHz."
                continue
            timing.append(Timing(seed, fmax))
        if not timing:
            raise TargetError(
                f"The gateware cannot be placed on {self.board.description} at "
                f"{self.requested_mhz:g} MHz.",
                why=refused,
                fix="Use fewer lanes, a larger FPGA, a slower clock or more seeds.",
            )
        best = max(timing, key=lambda item: item.fmax_mhz).seed
        path = self._packed(best)
        counts = self.board.family, reports[best]["utilization"]
        return Placed(
            bitstream=path,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            requested_mhz=self.requested_mhz,
            timing=tuple(timing),
            used=commands.counted(*counts, "used"),
            available=commands.counted(*counts, "available"),
        )

    def _fmax_mhz(self, report: dict[str, Any], seed: int) -> float:
        found: float = min(clock["achieved"] for clock in report["fmax"].values())
        if self.board.family != "gowin":
            return found
        delays = (self.folder / commands.delays_of(seed)).read_text("utf-8")
        return min(found, fmax_mhz(delays))

    def _packed(self, seed: int) -> Path:
        command = commands.pack(self.board, seed)
        self._required(
            "Packing the bitstream", command, (commands.placed_of(seed),), (command[-1],),
            "The bitstream cannot be packed.",
        )  # fmt: skip
        return self.folder / command[-1]

    @property
    def _toolchain_name(self) -> str:
        return commands.toolchain_of(self.board.family)

    @cached_property
    def _toolchain(self) -> Installed:
        return require(self._toolchain_name)

    def _required(
        self,
        said: str,
        command: list[str],
        taken: Sequence[str],
        made: Sequence[str],
        what: str,
    ) -> None:
        if complaint := self._step(said, command, taken, made):
            raise ToolchainError(
                what, why=f"It says: {complaint}", fix=commands.doctor_of(self.board.family)
            )

    def _step(
        self, said: str, command: list[str], taken: Sequence[str], made: Sequence[str]
    ) -> str:
        """Run a command unless the files that it makes are kept; its complaint where it fails."""
        digests = {name: _digest(self.folder / name) for name in sorted(taken)}
        parts = [self._toolchain.identity, command, digests, list(made)]
        if (kept := self.keeper.get("synthesis", parts)) is not None:
            self.say(f"{said}: finished before")
            _unpack(kept, self.folder)
            return ""
        self.say(said)
        request = {"folder": str(self.folder), "commands": [command]}
        reply = ask(self._toolchain, request, timeout_s=_TIMEOUT_S)
        if reply["failed"] is not None:
            return _complaint(reply["logs"][-1])
        self.keeper.put("synthesis", parts, _pack(self.folder, made))
        return ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pack(folder: Path, names: Sequence[str]) -> bytes:
    files: Mapping[str, bytes] = {name: (folder / name).read_bytes() for name in names}
    return zlib.compress(msgspec.msgpack.encode(files), 1)


def _unpack(packed: bytes, folder: Path) -> None:
    files = msgspec.msgpack.decode(zlib.decompress(packed), type=dict[str, bytes])
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _complaint(log: str) -> str:
    errors = re.findall(r"^ERROR: (.*)$", log, re.MULTILINE)
    return errors[-1] if errors else (log.strip().splitlines() or ["it says nothing"])[-1]
