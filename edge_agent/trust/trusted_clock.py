"""The time that the fleet has proven to this device: a floor that only rises, and the time of now.

A wall clock may be years wrong, in either direction, and be set by anyone on the network. What
the director signs proves a least time. An answer to this device's own nonce proves the time of
now, from which the clock of this boot, which counts also while the machine sleeps, goes on. Only
a reset that the director signs, in such an answer, lowers the floor.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cloud_sync.dating import EARLIEST_S
from cloud_sync.release import write_atomically
from cloud_sync.trust.messages import SignedTime

KEEP_EVERY_S = 3600.0


class _Floor(msgspec.Struct, frozen=True, kw_only=True):
    proven: float
    reset: str = ""


class TrustedClock:
    """See the module. Safe to use from several threads.

    Args:
        path: where the floor is kept.
        proven: what was proven before there was such a file, in Unix seconds.
        wall: the wall clock, in Unix seconds.
        boot_clock: seconds since this boot, also while the machine slept.
    """

    def __init__(
        self,
        path: Path,
        proven: float,
        *,
        wall: Callable[[], float] = time.time,
        boot_clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._path = path
        self._wall = wall
        self._boot_clock = boot_clock
        self._lock = threading.Lock()
        self._zero: float | None = None  # the time when the boot's clock was zero
        self._kept = _read(path) or _Floor(proven=proven)
        self._proven = self._kept.proven

    @property
    def is_told(self) -> bool:
        """Whether the fleet has answered with the time since this was made."""
        return self._zero is not None

    def floor(self) -> float:
        """The latest time that is proven, in Unix seconds."""
        with self._lock:
            return self._floor()

    def now(self) -> float | None:
        """The time, in Unix seconds; None where this device has to ask for it.

        Told by the fleet in this run; else the wall clock, if it was ever set and is not behind
        what is proven.
        """
        with self._lock:
            if self._zero is not None:
                return self._floor()
            wall = self._wall()
            return wall if wall >= max(self._floor(), EARLIEST_S) else None

    def of_tls(self) -> float:
        """The time by which servers' certificates are judged."""
        return self.now() or self.floor()

    def prove(self, at: float) -> None:
        """Take something that the director signed at a time.

        Raises:
            OSError: it cannot be kept.
        """
        with self._lock:
            self._proven = max(self._proven, at)
            self._keep(self._kept.reset)

    def tell(self, answer: SignedTime) -> bool:
        """Take the answer to a nonce of this run; returns whether it was a reset.

        Raises:
            OSError: it cannot be kept.
        """
        with self._lock:
            is_reset = answer.reset not in {"", self._kept.reset}
            told = answer.at if is_reset else max(answer.at, self._floor())
            self._zero = told - self._boot_clock()
            self._proven = told
            self._keep(answer.reset or self._kept.reset)
            return is_reset

    def _floor(self) -> float:
        going = self._zero + self._boot_clock() if self._zero is not None else 0.0
        return max(self._proven, going)

    def _keep(self, reset: str) -> None:
        """Write the floor, not at every proof: flash wears."""
        floor = self._floor()
        if reset == self._kept.reset and floor < self._kept.proven + KEEP_EVERY_S:
            return
        kept = _Floor(proven=floor, reset=reset)
        write_atomically(self._path, msgspec.json.encode(kept), 0o600)
        self._kept = kept


def _read(path: Path) -> _Floor | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Floor)
    except (OSError, msgspec.DecodeError, ValueError):
        return None  # damaged, it is as good as none: the journal has a floor, too
