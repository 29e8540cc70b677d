"""The agent's threads that turn until it ends; what fails in one is logged, and it turns again."""

import logging
import threading
import time
from collections.abc import Callable

from edge_agent.health import Beats
from edge_agent.update.fetching import Interrupted
from edgeml.errors import EdgemlError

log = logging.getLogger(__name__)

# How long a loop may take for a turn before the watchdog outside is left without word.
LOOP_S = 300.0
AFTER_FAULT_S = 1.0


class Loops:
    """See the module.

    Args:
        stop: set when they are to end.

    Attributes:
        beats: when each began its last turn.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.beats = Beats()
        self._stop = stop
        self._threads: list[threading.Thread] = []

    def begin(self, name: str, turn: Callable[[], None], allowed_s: float = LOOP_S) -> None:
        """Have a thread take turns, each of which may take so long."""
        thread = threading.Thread(
            target=self._until_stopped, args=[name, turn, allowed_s], name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def join(self, deadline: float) -> None:
        """Wait for all to end, until a monotonic time or a moment each."""
        for thread in list(self._threads):
            thread.join(left(deadline))

    @property
    def alive(self) -> bool:
        """Whether one has not ended."""
        return any(thread.is_alive() for thread in list(self._threads))

    def _until_stopped(self, name: str, turn: Callable[[], None], allowed_s: float) -> None:
        while not self._stop.is_set():
            self.beats.beat(name, allowed_s)
            if not guarded(turn):
                self._stop.wait(AFTER_FAULT_S)
        self.beats.end(name)


def guarded(work: Callable[[], None]) -> bool:
    """Do some work; returns whether nothing failed, or something else was due first."""
    try:
        work()
    except Interrupted:
        pass
    except EdgemlError as error:
        log.error("%s", error)  # noqa: TRY400 -- the sentence says it all
        return False
    except Exception:
        # A fault of ours in one thread must not silence the device.
        log.exception("an unexpected fault")
        return False
    return True


def left(deadline: float) -> float:
    """The seconds until a monotonic time, at least a moment."""
    return max(0.05, deadline - time.monotonic())
