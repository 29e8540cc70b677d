"""One source: a thread that reads it, and one that watches over the reading.

A read may wait for ever inside a driver or a decoder, and nothing ends a thread that does. So
frames are delivered by the thread that reads them, without another in between, and a second
one, asleep until a frame is due, notices silence, says so, gives a reading up and begins anew.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

from cloud_sync.messages import SourceConfig
from edge_agent.mailbox import Frame
from edge_agent.sources.backoff import Backoff
from edge_agent.sources.interface import Deliver, Reader, SourceStatus, State
from edge_agent.sources.kinds import open_source
from edgeml.errors import DeviceError

log = logging.getLogger(__name__)

STALL_PERIODS = 3.0
STALL_S = 1.0  # what is noticed sooner is jitter
GIVE_UP_S = 10.0  # of silence, then a live source is opened anew
OPEN_S = 30.0  # to open, and to give the first frame
CLOSE_S = 2.0
LONGEST_SLEEP_S = 3600.0
MAX_LATE_S = 1.0
MAX_HANGING = 3
SMOOTHING = 0.2


class Source:
    """See the module; frames go to `deliver`.

    Args:
        config: what to open, and where its frames go.
        deliver: takes a frame; must not wait.
        on_status: called at each change, by a thread of the source.
        clock: the wall clock, in Unix seconds; None while it is not known.
    """

    def __init__(
        self,
        config: SourceConfig,
        deliver: Deliver,
        *,
        on_status: Callable[[SourceStatus], None] | None = None,
        clock: Callable[[], float | None] = time.time,
    ) -> None:
        self.config = config
        self._deliver = deliver
        self._on_status = on_status
        self._clock = clock
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.RLock()
        self._frames = 0
        self._reading: _Reading | None = None
        self._hanging: list[_Reading] = []
        self._status = SourceStatus(
            name=config.name, model=config.model, state="starting", since=time.monotonic()
        )
        self._thread = threading.Thread(target=self._run, name=f"source-{config.name}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """End after the frame in hand; `join` waits for it."""
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float = 5.0) -> bool:
        """Wait for the end; returns whether it came in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def status(self) -> SourceStatus:
        """How the source is at this moment."""
        with self._lock:
            self._notice_silence()
            return msgspec.structs.replace(self._status, frames=self._frames)

    @property
    def error(self) -> str:
        """Why there are no frames; empty while there are."""
        return self.status().reason

    @property
    def ended(self) -> bool:
        """Whether it gave its last frame."""
        return self._status.state == "ended"

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            self._hanging = [one for one in self._hanging if one.thread.is_alive()]
            if len(self._hanging) >= MAX_HANGING:
                self._become("lost", f"{MAX_HANGING} readings hang in the driver or decoder.")
            elif self._read_once(backoff):
                break
            self._stop.wait(backoff.next_s())

    def _read_once(self, backoff: Backoff) -> bool:
        """One reading, from its opening to its end; whether it was the last."""
        self._wake.clear()
        reading = self._reading = _Reading(self.config, self._taken, self._wake)
        reading.thread.start()
        while not reading.done and not self._stop.is_set():
            self._wake.wait(reading.patience_s())
            self._wake.clear()
            with self._lock:
                if reading.waits() and self._status.state in {"starting", "lost"}:
                    self._become("running")
                self._notice_silence()
            if reading.silent_s() >= reading.hopeless_s():
                break
        reading.stop.set()
        if self._stop.is_set():
            reading.thread.join(CLOSE_S)
        if not reading.done:
            self._hanging.append(reading)
        if reading.frames:
            backoff.reset()
        if self._stop.is_set() or reading.error is not None or not reading.done:
            self._lost(reading)
            return False
        self._become("ended")
        return True

    def _lost(self, reading: "_Reading") -> None:
        if self._stop.is_set():
            return
        error = reading.error
        if isinstance(error, DeviceError):
            self._become("lost", str(error))
        elif error is not None:
            self._become("lost", f"{type(error).__name__}: {error}")
        else:
            self._become("lost", f"{reading.complaint()} The reading was given up.")

    def _notice_silence(self) -> None:
        """Say that a source has stalled, as soon as it has."""
        reading = self._reading
        if reading is None or self._status.state not in {"running", "starting"}:
            return
        if reading.silent_s() >= reading.limit_s():
            self._become("stalled", reading.complaint())

    def _taken(self, reading: "_Reading", at: float, image: NDArray[Any]) -> bool | None:
        """Deliver a frame of a reading that was not given up."""
        with self._lock:
            if reading is not self._reading or reading.stop.is_set():
                return None
            number = reading.frames if reading.kind == "recorded" else self._frames
            self._frames += 1
            reading.seen(time.monotonic())
            if self._status.state != "running":
                self._become("running")
        wall = self._clock()
        return self._deliver(
            Frame(
                source=self.config.name,
                index=number,
                captured=at,
                image=image,
                wall=None if wall is None else wall - (time.monotonic() - at),
            )
        )

    def _become(self, state: State, reason: str = "") -> None:
        with self._lock:
            before = self._status
            if (before.state, before.reason) == (state, reason):
                return
            since = before.since if before.state == state else time.monotonic()
            self._status = msgspec.structs.replace(
                before, state=state, reason=reason, since=since, frames=self._frames
            )
            if reason:
                log.warning("source %s is %s: %s", self.config.name, state, reason)
            elif before.state in {"stalled", "lost"}:
                log.info("source %s is %s again", self.config.name, state)
            if self._on_status is not None:
                self._on_status(self._status)


class PushSource(Source):
    """A source whose frames are pushed by another part of this process."""

    def push(
        self, image: NDArray[Any], captured_at: float | None = None
    ) -> Literal["accepted", "replaced", "refused"]:
        """Give a frame; any thread may.

        Args:
            image: what the model's pipeline takes; it is not copied, and must not change.
            captured_at: the monotonic time of its capture; now, where None.

        Returns:
            Whether it waits, waits in the place of an older one, or no model takes it.
        """
        reading = self._reading
        at = time.monotonic() if captured_at is None else captured_at
        replaced = None if reading is None else self._taken(reading, at, image)
        if replaced is None:
            return "refused"
        return "replaced" if replaced else "accepted"


class _Reading:
    """One reader, from its opening to its close, in a thread that may never end."""

    def __init__(
        self,
        config: SourceConfig,
        taken: Callable[["_Reading", float, NDArray[Any]], bool | None],
        wake: threading.Event,
    ) -> None:
        self.stop = threading.Event()
        self.done = False
        self.error: Exception | None = None
        self.frames = 0
        self.kind = "live"
        self._config = config
        self._taken = taken
        self._wake = wake
        self._period = 0.0
        self._last = time.monotonic()
        self._opened = False
        self.thread = threading.Thread(
            target=self._run, name=f"source-{config.name}-reading", daemon=True
        )

    def seen(self, now: float) -> None:
        """Note a frame."""
        if self.kind == "live" and self.frames:
            # Containers and drivers state rates that cameras do not keep.
            self._period += SMOOTHING * (now - self._last - self._period)
        self._last = now
        self.frames += 1

    def waits(self) -> bool:
        """Whether it is open, and frames come when they come."""
        return self._opened and self.kind == "events" and not self.done

    def silent_s(self) -> float:
        """How long there was no frame."""
        return time.monotonic() - self._last

    def complaint(self) -> str:
        """The silence as a sentence."""
        what = "No frame" if self.frames else "No first frame"
        return f"{what} for {self.silent_s():.1f} s."

    def limit_s(self) -> float:
        """How long there may be none."""
        if not self._opened:
            return OPEN_S
        return max(STALL_S, STALL_PERIODS * self._period) if self._period else float("inf")

    def hopeless_s(self) -> float:
        """After how long a silence the reading is given up: it will give nothing more."""
        if not self._opened:
            return OPEN_S
        return max(GIVE_UP_S, 3 * self.limit_s()) if self.kind == "live" else float("inf")

    def patience_s(self) -> float:
        """How long to sleep until there is something to notice."""
        silent = self.silent_s()
        ahead = [at - silent for at in (self.limit_s(), self.hopeless_s()) if at > silent]
        return min(*ahead, LONGEST_SLEEP_S) if ahead else LONGEST_SLEEP_S

    def _run(self) -> None:
        try:
            while True:
                with closing(open_source(self._config, self.stop)) as reader:
                    self._opening(reader)
                    self._play(reader)
                if reader.kind != "recorded" or not self._config.loop or self.stop.is_set():
                    break
        except Exception as error:  # noqa: BLE001 -- whatever a driver throws, the source tries again
            self.error = error
        finally:
            self.done = True
            self._wake.set()

    def _opening(self, reader: Reader) -> None:
        self.kind = reader.kind
        fps = self._config.fps or (0.0 if reader.kind == "events" else reader.fps)
        self._period = 1 / fps if fps else 0.0
        self._last = time.monotonic()
        self._opened = True
        self.frames = 0
        self._wake.set()

    def _play(self, reader: Reader) -> None:
        due = time.monotonic()
        while not self.stop.is_set():
            found = reader.read()
            if found is None:
                break
            at, image = found
            if reader.kind == "recorded":
                at = due = self._wait_until(due)
                due += self._period
            if self.stop.is_set():
                return
            self._taken(self, at, image)
        if reader.kind == "live" and not self.stop.is_set():
            raise DeviceError("The stream ended.")
        if reader.kind == "recorded":
            # The last frame, too, lasts its period before the first comes again.
            self._wait_until(due)

    def _wait_until(self, due: float) -> float:
        """Wait; returns when the next frame is due after that."""
        wait = due - time.monotonic()
        if wait < -MAX_LATE_S:
            return time.monotonic()  # the machine slept; do not rush to catch up
        self.stop.wait(max(0.0, wait))
        return due
