"""A model's inference thread: frames in, results out, its release swapped between two frames.

A driver or a runtime may hang in the middle of a frame, and nothing ends a thread that does.
Who waits for the frame to end therefore waits until it is `stuck_s` and no longer; a thread
that is stuck is abandoned with its release, and a successor takes over its mailbox.
"""

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from cloud_sync.messages import MAX_METRICS, Measure
from cloud_sync.messages import Window as WindowRecord
from edge_agent.loaded import LoadedRelease
from edge_agent.mailbox import Frame, Mailbox
from edge_agent.memory import rss_bytes
from edge_agent.statistics import Window
from edgeml.errors import DeviceError, EdgemlError, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_agent.api.device import Watched

log = logging.getLogger(__name__)

# How long a frame may take: a multiple of this release's own p99 once that is known.
STUCK_LEAST_S = 1.0
STUCK_TIMES_P99 = 20.0
MEASURED = 50
STUCK_S = 10.0  # until then
STUCK_FIRST_S = 60.0  # a runtime may prepare much at its first frame
RECENT = 2000
POLL_S = 0.05
IDLE_S = 0.5
MAX_REST_S = 10.0

OnResult = Callable[[dict[str, Any]], None]
OnFrame = Callable[[Frame, dict[str, Any], LoadedRelease], None]
Energy = Callable[[], float | None]
Celsius = Callable[[], float | None]
TEMPERATURE = "temperature_c"


def allowed_s(times: Sequence[float]) -> float:
    """How long a frame may take before its inference counts as stuck, in seconds.

    Args:
        times: what this release's recent inferences took with all that belongs to a frame, in
            seconds; frames in which the pipeline located nothing are not among them.
    """
    if not times:
        return STUCK_FIRST_S
    p99 = sorted(times)[min(len(times) - 1, len(times) * 99 // 100)]
    return max(STUCK_LEAST_S if len(times) >= MEASURED else STUCK_S, STUCK_TIMES_P99 * p99)


class Worker:
    """Runs one model for all of its sources.

    Attributes:
        duty: the share of its time that it may infer, above 0 and up to 1; set by others.

    Args:
        energy: the joules that the device has used so far, None where nothing tells.
        celsius: how warm the device is now, None where nothing tells.
        on_frame: called with every frame that is done, the line of its result and what ran.
    """

    def __init__(
        self,
        model: str,
        loaded: LoadedRelease,
        on_result: OnResult,
        mailbox: Mailbox | None = None,
        *,
        energy: Energy = lambda: None,
        celsius: Celsius = lambda: None,
        on_frame: OnFrame = lambda _frame, _line, _loaded: None,
    ) -> None:
        self.model = model
        self.mailbox = mailbox or Mailbox()
        self.abandoned = False
        self.duty = 1.0
        # Its source, since when, and how long it may take; None for what frames may.
        self._in_flight: tuple[str, float, float | None] | None = None
        self._times: deque[float] = deque(maxlen=RECENT)
        self._watchers: queue.SimpleQueue[queue.SimpleQueue[Watched]] = queue.SimpleQueue()
        self._loaded = loaded
        self._on_result = on_result
        self._on_frame = on_frame
        self._frame_lock = threading.Lock()
        self._turnstile = threading.Lock()
        self._taking = threading.Lock()
        self._windows: dict[str, Window] = {}
        self._metrics: dict[str, Measure] = {}
        self._reported: dict[str, tuple[int, int]] = {}
        self._began = time.monotonic()
        self._energy = energy
        self._energy_at = energy()
        self._celsius = celsius
        self._thread = threading.Thread(target=self._run, name=f"worker-{model}", daemon=True)
        self._stop = threading.Event()

    @property
    def loaded(self) -> LoadedRelease:
        """The release that takes frames now."""
        return self._loaded

    def start(self) -> None:
        """Begin to take frames."""
        self._thread.start()

    def stop(self) -> None:
        """End after the frame in flight; `join` waits for it."""
        self._stop.set()
        self.mailbox.close()

    def join(self, timeout_s: float = 5.0) -> bool:
        """Wait for the end; returns whether it came in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stuck_s(self) -> float:
        """How long what is in flight has taken, where it may not take so long; else 0."""
        in_flight = self._in_flight
        if in_flight is None or self.abandoned:
            return 0.0
        _, since, may_take = in_flight
        seconds = time.monotonic() - since
        if seconds <= STUCK_LEAST_S:
            return 0.0
        allowed = allowed_s(self._times.copy()) if may_take is None else may_take
        return seconds if seconds > allowed else 0.0

    def abandon(self) -> None:
        """Give the stuck thread up; the frame that it holds is counted as an error.

        Its release stays as it is: nothing can tell what the thread still touches.
        """
        self.abandoned = True
        self._stop.set()
        in_flight = self._in_flight
        if in_flight is not None and in_flight[0]:
            self._windows.setdefault(in_flight[0], Window()).errors += 1

    def successor(self, loaded: LoadedRelease) -> "Worker":
        """A new thread for the mailbox of this one, which was abandoned."""
        worker = Worker(
            self.model,
            loaded,
            self._on_result,
            self.mailbox,
            energy=self._energy,
            celsius=self._celsius,
            on_frame=self._on_frame,
        )
        worker._reported = self._reported
        worker._watchers = self._watchers
        worker.duty = self.duty
        return worker

    def swap(self, loaded: LoadedRelease) -> tuple[LoadedRelease, list[WindowRecord]]:
        """Let another release take the next frame.

        Returns:
            The one that ran until now, still warm, and the windows of what it did.

        Raises:
            DeviceError: the inference is stuck.
        """
        with self._between_frames():
            windows = self._take_windows()
            before, self._loaded = self._loaded, loaded
            self._times = deque(maxlen=RECENT)
        return before, windows

    def set_site(self, site: Mapping[str, Any]) -> None:
        """Use what the site sets from the next frame on.

        Raises:
            ModelError: the release does not let a site set this.
        """
        self._loaded.set_site(site)

    def windows(self, timeout_s: float = math.inf) -> list[WindowRecord]:
        """What was done since the last call, by source.

        Raises:
            DeviceError: the inference is stuck, or did not end in time.
        """
        if self.abandoned:
            return self._take_windows()
        with self._between_frames(timeout_s):
            return self._take_windows()

    def measure(self, metrics: Mapping[str, Sequence[float]]) -> None:
        """Count what was measured of the release that runs now into its next window.

        Raises:
            UserError: these are too many metrics for one window; none of them is counted.
        """
        with self._taking:
            if len(self._metrics.keys() | metrics) >= MAX_METRICS:
                raise UserError(
                    f"A model has no more than {MAX_METRICS - 1} metrics in one report.",
                    fix="Use fewer names: what differs from time to time is a value, no name.",
                )
            for name, values in metrics.items():
                for value in values:
                    self._count(name, value)

    def _count(self, name: str, value: float) -> None:
        one, before = Measure(n=1, sum=value, min=value, max=value), self._metrics.get(name)
        self._metrics[name] = before.merged(one) if before else one

    def infer(self, tensors: Sequence["NDArray[Any]"], timeout_s: float) -> "list[NDArray[Any]]":
        """Run tensors of someone else's through the model, between two frames.

        Returns:
            Copies of the outputs.

        Raises:
            ModelError: the tensors do not fit the model.
            DeviceError: the inference is stuck, or did not end in time.
        """
        with self._between_frames(timeout_s):
            # What others ask for is as large as they like: it has its own time, not a frame's.
            self._in_flight = "", time.monotonic(), timeout_s
            try:
                return [output.copy() for output in self._loaded.session.run(tensors)]
            finally:
                self._in_flight = None

    def watch(self, timeout_s: float) -> "Watched | None":
        """The next frame that is done, with its result; None if none comes in time."""
        answer: queue.SimpleQueue[Watched] = queue.SimpleQueue()
        self._watchers.put(answer)
        try:
            return answer.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @contextmanager
    def _between_frames(self, timeout_s: float = math.inf) -> Iterator[None]:
        # A busy worker would take its own lock again and again before anyone else could; it
        # stops at the turnstile while someone waits.
        deadline = time.monotonic() + timeout_s
        with self._held(self._turnstile, deadline), self._held(self._frame_lock, deadline):
            yield

    @contextmanager
    def _held(self, lock: threading.Lock, deadline: float) -> Iterator[None]:
        while not lock.acquire(timeout=POLL_S):
            if self.stuck_s() or self.abandoned or time.monotonic() > deadline:
                raise DeviceError(
                    f"The inference of {self.model} does not end.",
                    why=f"Its frame in flight has taken {self._busy_s():.1f} seconds.",
                )
        try:
            yield
        finally:
            lock.release()

    def _busy_s(self) -> float:
        in_flight = self._in_flight
        return time.monotonic() - in_flight[1] if in_flight else 0.0

    def _run(self) -> None:
        while not self._stop.is_set():
            frame = self.mailbox.take(IDLE_S)
            if frame is None:
                continue
            begun = time.monotonic()
            self._one(frame)
            if self.duty < 1.0:
                # A device that is too hot idles in proportion to what it worked.
                busy = time.monotonic() - begun
                self._stop.wait(min(busy * (1 / self.duty - 1), MAX_REST_S))

    def _one(self, frame: Frame) -> None:
        with self._turnstile:
            pass
        with self._frame_lock:
            window = self._windows.setdefault(frame.source, Window())
            loaded = self._loaded
            line: dict[str, Any] = {
                "frame": frame.index,
                "t": round(time.time(), 3),
                "source": frame.source,
                "model": self.model,
                "release_version": loaded.desired.release_version,
            }
            begun = time.monotonic()
            self._in_flight = frame.source, begun, None
            result = None
            try:
                result = loaded.infer(frame, window)
            except EdgemlError as error:
                line["error"] = str(error)
                log.debug("frame %s failed: %s", frame.index, error)
            else:
                if result is None:
                    line["empty"] = True
                else:
                    line |= result.line()
                    self._times.append(time.monotonic() - begun)
            finally:
                self._in_flight = None
            if not self._watchers.empty():
                self._show(frame, loaded, result)
        if not self.abandoned:
            self._on_result(line)
            self._on_frame(frame, line, loaded)

    def _show(self, frame: Frame, loaded: LoadedRelease, result: Any) -> None:
        from edge_agent.api.device import Watched

        seen = Watched(
            source=frame.source,
            index=frame.index,
            captured=frame.captured,
            image=frame.image.copy(),
            result=result,
            pipeline=loaded.pipeline,
            region=loaded.region,
        )
        while True:
            try:
                self._watchers.get_nowait().put(seen)
            except queue.Empty:
                return

    def _take_windows(self) -> list[WindowRecord]:
        with self._taking:
            now = time.monotonic()
            seconds, self._began = now - self._began, now
            taken, self._windows = self._windows, {}
            each = self._energy_of_one(sum(window.inferred for window in taken.values()))
            desired = self._loaded.desired
            found = []
            for source in self.mailbox.sources() or ([""] if self._metrics else []):
                window = taken.get(source) or Window()
                accepted, replaced = self.mailbox.counts(source)
                before = self._reported.get(source, (0, 0))
                self._reported[source] = (accepted, replaced)
                found.append(
                    WindowRecord(
                        model=self.model,
                        source=source,
                        release=desired.release,
                        variant=desired.variant,
                        release_version=desired.release_version,
                        runtime=self._loaded.runtime,
                        seconds=seconds,
                        accepted=accepted - before[0],
                        replaced=replaced - before[1],
                        inferred=window.inferred,
                        empty=window.empty,
                        errors=window.errors,
                        confident=window.confident,
                        classes=window.classes,
                        latency=window.latency(),
                        rss_bytes=rss_bytes(),
                        duty=self.duty,
                        energy_j=None if each is None else each * window.inferred,
                    )
                )
            if found and (celsius := self._celsius()) is not None:
                self._count(TEMPERATURE, celsius)
            if found:
                found[0] = msgspec.structs.replace(found[0], metrics=self._metrics)
                self._metrics = {}
        return found

    def _energy_of_one(self, inferred: int) -> float | None:
        """The joules that the device used for each of so many inferences since the last time."""
        before, self._energy_at = self._energy_at, self._energy()
        if before is None or self._energy_at is None or not inferred:
            return None
        return (self._energy_at - before) / inferred
