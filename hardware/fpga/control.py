"""The registers that all our gateware has: who it is, start, stop, what became of it."""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.transport import Transport

TIMEOUT_S = 30.0
_SOONEST_S, _LATEST_S = 0.0005, 0.02  # between two questions whether it is done
_LATE = 1 / 16  # of what was waited before
_RELOAD = "Load the release's bitstream into the FPGA."
_Answer = TypeVar("_Answer")


class Done(NamedTuple):
    """An inference that ended: its clocks and, after an ArgMax, the number of the class."""

    cycles: int
    winner: int


class Control:
    """The registers of a gateware behind a transport.

    Args:
        transport: the way to it.
        timeout_s: after which what was started counts as hung.
    """

    def __init__(self, transport: Transport, *, timeout_s: float = TIMEOUT_S) -> None:
        self.transport = transport
        self._timeout_s = timeout_s
        self._mark = secrets.randbits(32)

    def require(self, build: str, version: int) -> list[int]:
        """The six registers of its size, once it has said that it is the one that is wanted.

        Args:
            build: the 32 digits that it must say of itself; empty takes any.
            version: of the protocol that what runs on it was made for.

        Raises:
            DeviceError: there is none of ours, or another one.
        """
        said = [int(word) for word in self.transport.read(at.REGISTERS, at.CONTROL)]
        if said[at.ID] != at.ID_VALUE:
            raise DeviceError(
                f"There is no gateware of edgeml behind {self.transport.kind}.",
                why=f"Its identification is {said[at.ID]:#010x}, not {at.ID_VALUE:#010x}.",
                fix=_RELOAD,
            )
        if said[at.VERSION] != version:
            raise DeviceError(
                f"The gateware in the FPGA speaks version {said[at.VERSION]} of the protocol.",
                why=f"The release was made for version {version}.",
                fix=f"{_RELOAD[:-1]}, or convert the model again.",
            )
        found = "".join(f"{word:08x}" for word in said[at.BUILD : at.SIZE])
        if build and found != build:
            raise DeviceError(
                "Another bitstream is in the FPGA than the release's.",
                why=f"It was built as {found}, the release's as {build}.",
                fix=_RELOAD,
            )
        return said[at.SIZE :]

    def take(self) -> None:
        """Say that it is loaded from here: what another driver then loads into it is noticed."""
        self.transport.write(at.REGISTERS + at.SCRATCH, np.array([self._mark], np.uint32))

    def run(self) -> Done:
        """Start it, and wait until it is done.

        Raises:
            DeviceError: it hangs, says an error, or does not answer.
        """
        self.rest()
        self.start()
        return self.finish()

    def rest(self) -> None:
        """Stop whatever runs, and see that it is: else its answer could be taken for another's.

        Raises:
            DeviceError: it is not stopped, or was not loaded from here.
        """
        self.stop()
        status, *_, mark = self.transport.read(at.REGISTERS + at.STATUS, at.SCRATCH - at.STATUS + 1)
        if mark != self._mark:
            raise DeviceError(
                "The FPGA holds another network, or none.",
                why="It was loaded from elsewhere meanwhile, or had no power.",
                fix="Let one program use it: it holds one network at a time.",
            )
        if status:
            raise DeviceError(
                "The FPGA does not take commands.",
                why="It was stopped, and is not.",
                fix="Load the bitstream again; if it stays, the board is broken.",
            )

    def start(self, bank: int = 0, entry: int = 0) -> None:
        """Start the program that begins at the word `entry`, of that bank.

        Raises:
            DeviceError: it does not answer; whether it was started, nobody knows.
        """
        self._command(at.START | at.START_BANK * bank | entry << at.ENTRY_SHIFT)

    def finish(self, bank: int = 0) -> Done:
        """Wait until what was started of that bank is done.

        Raises:
            DeviceError: it hangs, says an error, or does not answer.
        """
        until = time.monotonic() + self._timeout_s
        waited = 0.0
        while True:
            is_late = time.monotonic() > until  # before it is asked: this process may have slept
            if done := self._done(bank):
                return done
            if is_late:
                raise DeviceError(
                    "The FPGA hangs.",
                    why=f"It was not done after {self._timeout_s:g} s; "
                    f"it is at layer {self.register(at.LAYER)}.",
                    fix="Check its clock and power; it was stopped.",
                )
            pause = min(max(_SOONEST_S, waited * _LATE), _LATEST_S)
            self.transport.wait(pause)
            waited += pause

    def stop(self) -> None:
        """Stop whatever runs, and clear the error."""
        self._command(at.STOP)

    def twice(self, attempt: Callable[[], _Answer], recover: Callable[[], None]) -> _Answer:
        """An answer; where there is none, the one of a second attempt after a recovery.

        Raises:
            DeviceError: that did not help; the gateware was told to stop.
        """
        try:
            return attempt()
        except DeviceError:
            recover()
        try:
            return attempt()
        except DeviceError:
            with suppress(DeviceError):  # also where the way to it is cut
                self.stop()
            raise

    def register(self, number: int) -> int:
        """What a register holds."""
        return int(self.transport.read(at.REGISTERS + number, 1)[0])

    def _command(self, value: int) -> None:
        self.transport.write(at.REGISTERS + at.CONTROL, np.array([value], np.uint32))

    def _done(self, bank: int) -> Done | None:
        words = self.transport.read(at.REGISTERS + at.STATUS, 3)
        status, cycles, index = map(int, words)
        if code := status >> at.ERROR_SHIFT & 0xFF:
            raise DeviceError(
                "The FPGA stopped with an error.",
                why=f"It says that {at.ERRORS.get(code, f'error {code} happened')}.",
                fix="Load the release again.",
            )
        is_done = status & at.DONE and bool(status & at.BANK) == bool(bank)
        return Done(cycles, index) if is_done else None


def wrong_gateware(why: str) -> DeviceError:
    """The error for gateware of ours that cannot hold the network."""
    return DeviceError(
        "The gateware in the FPGA is not one for this network.", why=why, fix=_RELOAD
    )
