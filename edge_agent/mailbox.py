"""A mailbox of one frame for each source: the newest wins, and what it replaces is counted."""

import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame with its number in the source and the time of its capture.

    `captured` is monotonic, `wall` Unix seconds where the clock is known. `image` is uint8
    [H, W] or [H, W, 3] BGR, int16 [samples] of audio, or a tensor.
    """

    source: str
    index: int
    captured: float
    image: "NDArray[Any]"
    wall: float | None = None


class Mailbox:
    """What a model's worker reads from: one place a source, served in turn."""

    def __init__(self) -> None:
        self._waiting: dict[str, Frame] = {}
        self._accepted: dict[str, int] = {}
        self._replaced: dict[str, int] = {}
        self._change = threading.Condition()
        self._closed = False

    def put(self, frame: Frame) -> bool:
        """Leave a frame; an older one of the same source that still waits is dropped.

        Returns:
            Whether it replaced one.
        """
        with self._change:
            self._accepted[frame.source] = self._accepted.get(frame.source, 0) + 1
            replaces = frame.source in self._waiting
            if replaces:
                self._replaced[frame.source] = self._replaced.get(frame.source, 0) + 1
            # Replaced in its place: a source that is quick does not lose its turn to slow ones.
            self._waiting[frame.source] = frame
            self._change.notify()
            return replaces

    def take(self, timeout_s: float) -> Frame | None:
        """The frame of the source that has waited longest, or None after the timeout."""
        deadline = time.monotonic() + timeout_s
        with self._change:
            while not self._waiting and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._change.wait(left)
            if self._closed:
                return None
            return self._waiting.pop(next(iter(self._waiting)))

    def waiting(self, source: str) -> int:
        """How many frames of a source wait: none or one."""
        with self._change:
            return int(source in self._waiting)

    def sources(self) -> tuple[str, ...]:
        """The sources that ever left a frame."""
        with self._change:
            return tuple(self._accepted)

    def counts(self, source: str) -> tuple[int, int]:
        """How many frames of a source were accepted, and how many of them replaced."""
        with self._change:
            return self._accepted.get(source, 0), self._replaced.get(source, 0)

    def close(self) -> None:
        """Wake whoever waits, for the last time."""
        with self._change:
            self._closed = True
            self._change.notify_all()
