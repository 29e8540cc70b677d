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

Paced = tuple[int, NDArray[Any]]


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
        """End, and wait for the thread."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        retry = RETRY_S[0]
        while not self._stop.is_set():
            try:
                self._play_once()
                self.error, retry = "", RETRY_S[0]
            except DeviceError as error:
                self.error = str(error)
                log.warning("source %s: %s", self.config.name, error)
                self._stop.wait(retry)
                retry = min(retry * 2, RETRY_S[1])
                continue
            if not self.config.loop:
                self.ended = True
                return

    def _play_once(self) -> None:
        fps, frames = open_source(self.config)
        period = 1 / fps
        due = time.monotonic()
        for index, image in frames:
            due += period
            wait = due - time.monotonic()
            if wait < -1.0:
                due = time.monotonic()  # the machine slept; do not rush to catch up
            if self._stop.wait(max(0.0, wait)):
                return
            self._deliver(
                Frame(source=self.config.name, index=index, captured=time.monotonic(), image=image)
            )


def open_source(config: SourceConfig) -> tuple[float, Iterator[Paced]]:
    """Open a source: its frames a second, and its frames with their numbers.

    Raises:
        DeviceError: there is no such source, or it cannot be opened.
    """
    parts = urlsplit(config.uri)
    opener = SCHEMES.get(parts.scheme)
    if opener is None:
        raise DeviceError(
            f"The source {config.uri[:200]!r} cannot be opened.",
            why=f"Known kinds are {', '.join(sorted(SCHEMES))}.",
        )
    fps, frames = opener(Path(unquote(parts.path)))
    return config.fps or fps, frames


def _video(path: Path) -> tuple[float, Iterator[Paced]]:
    capture = cv2.VideoCapture(str(path))
    if not path.is_file() or not capture.isOpened():
        raise DeviceError(f"The video {path} cannot be opened.", fix="Check the path and codec.")
    fps = float(capture.get(cv2.CAP_PROP_FPS)) or DEFAULT_FPS

    def frames() -> Iterator[Paced]:
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

    return fps, frames()


def _images(folder: Path) -> tuple[float, Iterator[Paced]]:
    files = sorted(f for f in folder.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DeviceError(f"The folder {folder} has no images.")

    def frames() -> Iterator[Paced]:
        for index, file in enumerate(files):
            image = cv2.imread(str(file))
            if image is None:
                raise DeviceError(f"The image {file} cannot be decoded.")
            yield index, image

    return DEFAULT_FPS, frames()


SCHEMES: dict[str, Callable[[Path], tuple[float, Iterator[Paced]]]] = {
    "file": _video,
    "images": _images,
}
