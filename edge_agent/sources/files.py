"""Video files, paced as they were recorded."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray

from cloud_sync.messages import SourceConfig
from edge_agent.sources.interface import Kind, address
from edgeml.errors import DeviceError

log = logging.getLogger(__name__)

DEFAULT_FPS = 10.0
MAX_FPS = 1000.0


class VideoReader:
    """A video that OpenCV decodes."""

    kind: Kind = "recorded"

    def __init__(self, path: Path) -> None:
        capture = cv2.VideoCapture(str(path)) if path.is_file() else None
        if capture is None or not capture.isOpened():
            raise DeviceError(
                f"The video {path} cannot be opened.", fix="Check the path and codec."
            )
        self._capture, self._path, self._count = capture, path, 0
        self.fps = sane(capture.get(cv2.CAP_PROP_FPS))
        self._announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next frame, uint8 [H, W, 3] BGR."""
        good, image = self._capture.read()
        if good:
            self._count += 1
            return time.monotonic(), image
        if self._count == 0:
            raise DeviceError(f"The video {self._path} has no frame that can be decoded.")
        if self._count < self._announced - 1:
            log.warning(
                "%s ends after %d of %d frames", self._path, self._count, int(self._announced)
            )
        return None

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def open_video(config: SourceConfig, _stop: threading.Event) -> VideoReader:
    """`file:///path/to/video.mp4`."""
    return VideoReader(Path(address(config.uri).path))


def sane(fps: float) -> float:
    """A rate as stated, where it can be one: a container without one says 0, NaN or its base."""
    return fps if 0 < fps <= MAX_FPS else DEFAULT_FPS
