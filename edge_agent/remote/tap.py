"""Lets one frame be looked at on its way to a model, when somebody asks for it."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge_agent.mailbox import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tap:
    """Stands between sources and workers; costs one look at a field a frame.

    Args:
        deliver: takes each frame for a model, and says whether it replaced one.
    """

    def __init__(self, deliver: Callable[[str, Frame], bool | None]) -> None:
        self._deliver = deliver
        self._wanted: _Wanted | None = None
        self._one = threading.Lock()

    def __call__(self, model: str, frame: Frame) -> bool | None:
        """Pass a frame on."""
        wanted = self._wanted
        if wanted is not None and wanted.source in {"", frame.source}:
            self._wanted = None
            wanted.image = frame.image.copy()
            wanted.came.set()
        return self._deliver(model, frame)

    def next_frame(self, source: str, timeout_s: float) -> "NDArray[Any] | None":
        """The next frame of a source, or of any for an empty name; None after the timeout."""
        with self._one:
            wanted = self._wanted = _Wanted(source)
            wanted.came.wait(timeout_s)
            self._wanted = None
            return wanted.image


class _Wanted:
    def __init__(self, source: str) -> None:
        self.source = source
        self.came = threading.Event()
        self.image: NDArray[Any] | None = None
