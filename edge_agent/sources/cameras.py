"""Cameras on this machine (V4L2, so USB too) and on the network (RTSP, HTTP), by OpenCV."""

import os
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import cv2
from numpy.typing import NDArray

from cloud_sync.messages import SourceConfig
from edge_agent.sources.files import sane
from edge_agent.sources.interface import Address, Kind, address, shown
from edgeml.errors import DeviceError

# What goes wrong is said by the source, once; these two would add lines of their own at each try.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

OPEN_MS = 10_000
READ_MS = 10_000
CAMERA_OPTIONS = ("width", "height")


class CaptureReader:
    """What OpenCV captures; frames beyond the wanted rate are grabbed and not decoded further."""

    kind: Kind = "live"

    def __init__(self, capture: cv2.VideoCapture, wanted: float | None) -> None:
        self._capture = capture
        self.fps = sane(capture.get(cv2.CAP_PROP_FPS))
        # A frame that comes a little early is still the one of its turn.
        self._pause = 0.0 if wanted is None else 0.9 / wanted
        self._last = float("-inf")

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next frame, uint8 [H, W, 3] BGR."""
        while self._capture.grab():
            at = time.monotonic()
            if at - self._last < self._pause:
                continue
            good, image = self._capture.retrieve()
            if not good:
                return None
            self._last = at
            return at, image
        return None

    def close(self) -> None:
        """Let the camera go."""
        self._capture.release()


def open_camera(config: SourceConfig, _stop: threading.Event) -> CaptureReader:
    """`v4l2:///dev/video0?width=1280&height=720`."""
    where = _camera(config)
    wanted = [
        value
        for name, key in (
            ("width", cv2.CAP_PROP_FRAME_WIDTH),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT),
        )
        if name in where.options
        for value in (key, int(where.number(name, 0, 1, 8192)))
    ]
    if config.fps is not None:
        wanted += [cv2.CAP_PROP_FPS, max(1, round(config.fps))]
    capture = cv2.VideoCapture(where.path, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise DeviceError(
            f"The camera {where.path} cannot be opened.",
            fix="Check that it is plugged in, that no other program has it, and that the agent's "
            "user is in the group video.",
        )
    for key, value in zip(wanted[::2], wanted[1::2], strict=True):
        capture.set(key, value)
    return CaptureReader(capture, config.fps)


def check_camera(config: SourceConfig) -> None:
    """Refuse a camera's URI that cannot be meant."""
    _camera(config)


def open_stream(config: SourceConfig, _stop: threading.Event) -> CaptureReader:
    """`rtsp://`, `rtsps://`, `http://` or `https://`, as FFmpeg reads them."""
    check_stream(config)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
    capture = cv2.VideoCapture(config.uri, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise DeviceError(
            f"The stream {shown(config.uri)} cannot be opened.",
            fix="Check address, name and password, and that the camera can be reached from here.",
        )
    return CaptureReader(capture, config.fps)


def check_stream(config: SourceConfig) -> None:
    """Refuse a stream's URI that names no host."""
    if not urlsplit(config.uri).hostname:
        raise DeviceError(f"The stream {shown(config.uri)!r} names no camera.")


def _camera(config: SourceConfig) -> Address:
    where = address(config.uri, CAMERA_OPTIONS)
    for name in where.options:
        where.number(name, 0, 1, 8192)
    if not where.path.startswith("/dev/"):
        raise DeviceError(
            f"The camera {where.path!r} is no device.", fix="Write v4l2:///dev/video0."
        )
    return where
