"""Where frames come from: a thread each, started from the device's configuration.

`file:` is a video (paced as it was recorded or at `fps`, looped if asked), `images:` a folder
of pictures. A source that cannot be opened says so and tries again, with backoff.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
from numpy.typing import NDArray

from cloud_sync.messages import SourceConfig
from edge_agent.mailbox import Frame
from edgeml.errors import DeviceError

log = logging.getLogger(__name__)

RETRY_S = (0.5, 30.0)
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
DEFAULT_FPS = 10.0
MAX_LATE_S = 1.0

Paced = tuple[int, NDArray[Any]]
Opened = tuple[float, Iterator[Paced]]


class Source:
    """One source's thread; frames go to `deliver`."""

    def __init__(self, config: SourceConfig, deliver: Callable[[Frame], None]) -> None:
        self.config = config
        self._deliver = deliver
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"source-{config.name}", daemon=True)
        self.error = ""
        self.ended = False

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self) -> None:
        """End after the frame in hand; `join` waits for it."""
        self._stop.set()

    def join(self, timeout_s: float = 5.0) -> bool:
        """Wait for the end; returns whether it came in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        retry = RETRY_S[0]
        while not self._stop.is_set():
            try:
                self._play_once()
                self.error, retry = "", RETRY_S[0]
            except Exception as error:  # noqa: BLE001 -- whatever a driver throws, the source tries again
                self._failed(error)
                self._stop.wait(retry)
                retry = min(retry * 2, RETRY_S[1])
                continue
            if not self.config.loop:
                self.ended = True
                return

    def _failed(self, error: Exception) -> None:
        said = str(error) if isinstance(error, DeviceError) else f"{type(error).__name__}: {error}"
        if said != self.error:
            log.warning("source %s: %s", self.config.name, said)
        self.error = said

    def _play_once(self) -> None:
        fps, frames = open_source(self.config)
        period = 1 / fps
        due = time.monotonic()
        for index, image in frames:
            wait = due - time.monotonic()
            if wait < -MAX_LATE_S:
                due = time.monotonic()  # the machine slept; do not rush to catch up
            if self._stop.wait(max(0.0, wait)):
                return
            self.error = ""
            self._deliver(
                Frame(source=self.config.name, index=index, captured=time.monotonic(), image=image)
            )
            due += period
        # The last frame, too, lasts its period before the first comes again.
        self._stop.wait(max(0.0, due - time.monotonic()))


def open_source(config: SourceConfig) -> Opened:
    """Open a source: its frames a second, and its frames with their numbers.

    Raises:
        DeviceError: there is no such source, or it cannot be opened.
    """
    try:
        parts = urlsplit(config.uri)
    except ValueError:
        parts = urlsplit("")
    opener = SCHEMES.get(parts.scheme)
    if opener is None:
        raise DeviceError(
            f"The source {config.uri[:200]!r} cannot be opened.",
            why=f"Known kinds are {', '.join(f'{scheme}:' for scheme in sorted(SCHEMES))}.",
            fix="Write file:///path/to/video.mp4 or images:///path/to/folder.",
        )
    fps, frames = opener(Path(unquote(parts.path)))
    return config.fps or fps, frames


def _video(path: Path) -> Opened:
    capture = cv2.VideoCapture(str(path)) if path.is_file() else None
    if capture is None or not capture.isOpened():
        raise DeviceError(f"The video {path} cannot be opened.", fix="Check the path and codec.")
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    # A container without a rate answers 0, NaN or its time base.
    sane = fps if 0 < fps <= 1000 else DEFAULT_FPS  # noqa: PLR2004
    return sane, _video_frames(capture, path)


def _video_frames(capture: cv2.VideoCapture, path: Path) -> Iterator[Paced]:
    index = 0
    try:
        while True:
            good, image = capture.read()
            if not good:
                break
            yield index, image
            index += 1
    finally:
        capture.release()
    if index == 0:
        raise DeviceError(f"The video {path} has no frame that can be decoded.")


def _images(folder: Path) -> Opened:
    files = sorted(f for f in folder.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DeviceError(
            f"The folder {folder} has no images.",
            why=f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}.",
        )
    return DEFAULT_FPS, _decoded(files)


def _decoded(files: list[Path]) -> Iterator[Paced]:
    for index, file in enumerate(files):
        image = cv2.imread(str(file))
        if image is None:
            raise DeviceError(f"The image {file} cannot be decoded.")
        yield index, image


SCHEMES: dict[str, Callable[[Path], Opened]] = {
    "file": _video,
    "images": _images,
}
