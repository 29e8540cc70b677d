"""Whether the agent is well: its loops turn, its memory is bounded, its device is not too hot.

The watchdog outside (systemd, or `edge_agent.supervisor`) hears from it only while every loop
has turned lately. What holds the interpreter's lock for ever therefore ends the process, too:
nothing inside it could.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.heat import Heat, next_duty, read_heat
from edge_agent.memory import rss_bytes
from edge_agent.systemd import notify, watchdog_period_s

log = logging.getLogger(__name__)

HEAT_EVERY_S = 5.0
MEMORY_EVERY_S = 5.0
RENEWED_S = 30.0
STEADY_S = 60.0


class Beats:
    """When each loop last turned, and how long it may take for a turn."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def beat(self, name: str, allowed_s: float) -> None:
        """A loop turns."""
        with self._lock:
            self._last[name] = time.monotonic(), allowed_s

    def end(self, name: str) -> None:
        """A loop is over."""
        with self._lock:
            self._last.pop(name, None)

    def late(self) -> dict[str, float]:
        """The loops that did not turn in time, with the seconds since they did."""
        now = time.monotonic()
        with self._lock:
            since = {name: (now - at, allowed) for name, (at, allowed) in self._last.items()}
        return {name: seconds for name, (seconds, allowed) in since.items() if seconds > allowed}


class Health:
    """Looked after by one thread, a `turn` at a time.

    Args:
        beats: of the loops.
        ceiling: the resident memory in bytes that inference may not outgrow; 0 for none.
        set_duty: called with the share of its time that inference may take.
        renew: called to have all that runs loaded anew.
        give_up: called with a sentence when only another process can help.
        root: where sysfs is found.
    """

    def __init__(
        self,
        beats: Beats,
        *,
        ceiling: int,
        set_duty: Callable[[float], None],
        renew: Callable[[], None],
        give_up: Callable[[str], None],
        root: Path = Path("/"),
    ) -> None:
        self._beats = beats
        self._ceiling = ceiling
        self._set_duty = set_duty
        self._renew = renew
        self._give_up = give_up
        self._root = root
        self._every_s = watchdog_period_s()
        self._said = self._heat_at = self._memory_at = 0.0
        self._renewed_at: float | None = None
        self._late: set[str] = set()
        self.duty = 1.0
        self.heat = Heat()

    def turn(self) -> None:
        """Look at everything that is due."""
        now = time.monotonic()
        late = self._beats.late()
        for name in set(late) - self._late:
            log.error("the loop %s has not turned for %.0f seconds", name, late[name])
        self._late = set(late)
        if not late and self._every_s is not None and now >= self._said + self._every_s / 2:
            self._said = now
            notify(watchdog=True)
        if now >= self._heat_at + HEAT_EVERY_S:
            self._heat_at = now
            self._cool()
        if self._ceiling and now >= self._memory_at + MEMORY_EVERY_S:
            self._memory_at = now
            self._bound_memory(now)

    def _cool(self) -> None:
        self.heat = read_heat(self._root, self.heat.usual_share if self._heat_at else 0.0)
        duty = next_duty(self.heat, self.duty)
        if duty != self.duty:
            log.warning("inference takes %.0f %% of its time now: %s", duty * 100, self.heat)
            self.duty = duty
            self._set_duty(duty)

    def _bound_memory(self, now: float) -> None:
        resident = rss_bytes()
        if resident <= self._ceiling:
            return
        said = f"{resident >> 20} MB of memory are taken, memory_mb is {self._ceiling >> 20}"
        if self._renewed_at is None or now >= self._renewed_at + STEADY_S:
            log.error("%s; inference is started anew", said)
            self._renewed_at = now
            self._renew()
        elif now >= self._renewed_at + RENEWED_S:
            self._give_up(f"{said}, also after inference was started anew")


class Marker:
    """A file that is there while the agent runs: whoever finds it knows that it did not end well.

    Only within one boot: a power loss is nobody's fault.
    """

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        self.crashed = _said_before(path) == boot_id != ""

    def set(self) -> None:
        """The agent runs."""
        with contextlib.suppress(OSError):
            self._path.write_text(self._boot_id)

    def clear(self) -> None:
        """The agent ended, as it was asked to."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def _said_before(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
