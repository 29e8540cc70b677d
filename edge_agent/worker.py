"""A model's inference thread: frames in, results out, its release swapped between two frames."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cloud_sync.messages import Window as WindowRecord
from edge_agent.loaded import LoadedRelease
from edge_agent.mailbox import Frame, Mailbox
from edge_agent.statistics import Window
from edgeml.errors import EdgemlError

log = logging.getLogger(__name__)

OnResult = Callable[[dict[str, Any]], None]


class Worker:
    """Runs one model for all of its sources."""

    def __init__(self, model: str, loaded: LoadedRelease, on_result: OnResult) -> None:
        self.model = model
        self.mailbox = Mailbox()
        self.busy_since: float | None = None
        self._loaded = loaded
        self._on_result = on_result
        self._frame_lock = threading.Lock()
        self._turnstile = threading.Lock()
        self._windows: dict[str, Window] = {}
        self._reported: dict[str, tuple[int, int]] = {}
        self._began = time.monotonic()
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

    def swap(self, loaded: LoadedRelease) -> tuple[LoadedRelease, list[WindowRecord]]:
        """Let another release take the next frame.

        Returns:
            The one that ran until now, still warm, and the windows of what it did.
        """
        with self._between_frames():
            windows = self._take_windows()
            before, self._loaded = self._loaded, loaded
        return before, windows

    def set_site(self, site: Mapping[str, Any]) -> None:
        """Use what the site sets from the next frame on.

        Raises:
            ModelError: the release does not let a site set this.
        """
        with self._between_frames():
            self._loaded.set_site(site)

    def windows(self) -> list[WindowRecord]:
        """What was done since the last call, by source."""
        with self._between_frames():
            return self._take_windows()

    @contextmanager
    def _between_frames(self) -> Iterator[None]:
        # A busy worker would take its own lock again and again before anyone else could; it
        # stops at the turnstile while someone waits.
        with self._turnstile, self._frame_lock:
            yield

    def _run(self) -> None:
        while not self._stop.is_set():
            frame = self.mailbox.take(0.5)
            if frame is not None:
                self._one(frame)

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
            self.busy_since = time.monotonic()
            try:
                result = loaded.infer(frame.image, frame.captured, window)
            except EdgemlError as error:
                line["error"] = str(error)
                log.debug("frame %s failed: %s", frame.index, error)
            else:
                if result is None:
                    line["empty"] = True
                else:
                    line |= {
                        "label": result.label,
                        "confidence": round(result.confidence, 4),
                        "confident": result.confident,
                    }
            finally:
                self.busy_since = None
        self._on_result(line)

    def _take_windows(self) -> list[WindowRecord]:
        now = time.monotonic()
        seconds, self._began = now - self._began, now
        taken, self._windows = self._windows, {}
        desired = self._loaded.desired
        found = []
        for source in self.mailbox.sources():
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
                )
            )
        return found


def rss_bytes() -> int:
    """This process's resident memory; 0 where the kernel does not tell."""
    try:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
