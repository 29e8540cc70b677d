"""What `edgeml agent try --annotate` writes: a picture of the last frame, or a video of all."""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_agent.annotate import annotate, jpeg
from edge_agent.api.device import Watched
from edgeml.errors import EdgemlError, UserError

PICTURES = frozenset({".jpg", ".jpeg"})
VIDEOS = frozenset({".mp4"})
DEFAULT_FPS = 10.0
MEASURED = 12


class Film:
    """Follows the frames on a thread of its own; the file appears whole, at the end.

    Raises:
        UserError: the file's kind is not known, or its folder is not there.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in PICTURES | VIDEOS:
            raise UserError(
                f"{path} cannot be written.",
                why="Its kind is not known.",
                fix="Name a .jpg for the last frame, or an .mp4 for all of them.",
            )
        if not path.parent.is_dir():
            raise UserError(f"{path} cannot be written.", why=f"There is no folder {path.parent}.")
        self._path = path
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._is_video = path.suffix.lower() in VIDEOS
        self._writer: Any = None
        self._held: list[tuple[float, Any]] = []
        self._size = (0, 0)
        self._last: Any = None
        self._fault: EdgemlError | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.frames = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        with contextlib.suppress(OSError):
            self._part.unlink()

    def follow(self, watch: Callable[[], Watched | None]) -> None:
        """Begin; `watch` waits for the next frame."""

        def turn() -> None:
            while not self._stop.is_set():
                try:
                    seen = watch()
                    if seen is not None:
                        self._take(seen)
                except EdgemlError as error:
                    self._fault = error
                    return

        self._thread = threading.Thread(target=turn, name="film", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what was seen.

        Raises:
            ModelError: the frames are no pictures.
            UserError: the file cannot be written.
        """
        self._end()
        if self._fault is not None:
            raise self._fault
        try:
            if self._is_video and self.frames:
                self._begin()
                self._writer.release()
                os.replace(self._part, self._path)
            elif self._last is not None:
                self._part.write_bytes(jpeg(self._last))
                os.replace(self._part, self._path)
        except OSError as error:
            raise UserError(f"{self._path} cannot be written.", why=f"{error.strerror}.") from None

    def _end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _take(self, seen: Watched) -> None:
        self._last = annotate(seen.image, seen.result, seen.region)
        self.frames += 1
        if not self._is_video:
            return
        if self._writer is not None:
            self._write(self._last)
            return
        # The rate of a video is written first, so the first frames tell it.
        self._held.append((seen.captured, self._last))
        if len(self._held) >= MEASURED:
            self._begin()

    def _begin(self) -> None:
        import cv2

        if self._writer is not None:
            return
        first, last = self._held[0], self._held[-1]
        spent = last[0] - first[0]
        fps = (len(self._held) - 1) / spent if spent > 0 else DEFAULT_FPS
        height, width = first[1].shape[:2]
        self._size = (width, height)
        kind = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._part), kind, round(fps, 2), self._size)
        if not self._writer.isOpened():
            raise UserError(
                f"{self._path} cannot be written.", why="OpenCV cannot encode an .mp4 here."
            )
        for _, picture in self._held:
            self._write(picture)
        self._held.clear()

    def _write(self, picture: Any) -> None:
        import cv2

        same = picture.shape[1::-1] == self._size
        self._writer.write(picture if same else cv2.resize(picture, self._size))
