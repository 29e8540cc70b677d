"""Folders of pictures: one that is played in order, and one in which pictures appear."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from cloud_sync.messages import SourceConfig
from edge_agent.sources.files import DEFAULT_FPS
from edge_agent.sources.interface import Kind, address
from edgeml.errors import DeviceError, ModelError
from hardware.pipeline.decode import decode_image

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
LOOK_S = 0.1
SETTLED_S = 0.2  # a file that has not changed for so long is looked into
_LEAST_PICTURE = 16  # bytes: less tells nothing of what it will be
DAMAGED_S = 10.0  # one that is not whole by then will not be
COARSE_S = 2.0  # the coarsest clock of a file system
AGAIN_S = 3.0  # a folder that does not change is read again, for files that were written in place
# A large folder is read less often: at most this part of the time goes into it.
BUSY, IDLE = 10, 100


class ImagesReader:
    """The pictures of a folder, in the order of their names; a damaged one is left out."""

    kind: Kind = "recorded"
    fps = DEFAULT_FPS

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        files = sorted(f for f in folder.glob("*") if _is_picture(f.name))
        self._files = iter(files)
        if not files:
            raise DeviceError(
                f"The folder {folder} has no images.",
                why=f"Images end in {', '.join(sorted(IMAGE_SUFFIXES))}.",
            )

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next picture, uint8 [H, W, 3] BGR."""
        for file in self._files:
            try:
                image = decode_image(file.read_bytes())
            except (OSError, ModelError) as error:
                _say_left_out(file, str(error))
                continue
            self._count += 1
            return time.monotonic(), image
        if self._count == 0:
            raise DeviceError(f"The folder {self._folder} has no image that can be decoded.")
        return None

    def close(self) -> None:
        """Nothing is open."""


class WatchReader:
    """The pictures that appear in a folder, once each, as soon as they are whole.

    What is there at the beginning is old. A file is whole when its size and time have stayed
    and its last bytes are those of a picture's end; one that is written anew counts again.
    """

    kind: Kind = "events"
    fps = 0.0

    def __init__(self, folder: Path, stop: threading.Event) -> None:
        self._folder, self._stop = folder, stop
        self._looked = _Look()
        self._done: dict[str, tuple[int, int]] = self._look()
        self._pending: dict[str, _Pending] = {}

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next picture, uint8 [H, W, 3] BGR."""
        while not self._stop.wait(LOOK_S):
            found = self._next()
            if found is not None:
                return found
        return None

    def close(self) -> None:
        """Nothing is open."""

    def _next(self) -> tuple[float, NDArray[Any]] | None:
        now = time.monotonic()
        if self._looked.is_due(now, _state(self._folder)):
            seen = self._look()
            self._done = {name: mark for name, mark in self._done.items() if name in seen}
        else:
            seen = self._look_at(self._pending)
        new = {name: mark for name, mark in seen.items() if self._done.get(name) != mark}
        self._pending = {name: one for name, one in self._pending.items() if name in new}
        for name, mark in new.items():
            one = self._pending.get(name)
            if one is None or one.mark != mark:
                self._pending[name] = _Pending(mark, now)
        for name, one in sorted(self._pending.items(), key=lambda item: (item[1].mark, item[0])):
            if now - one.since >= SETTLED_S:
                image = self._whole(name, one, now)
                if image is not None:
                    return one.since, image
        return None

    def _whole(self, name: str, one: "_Pending", now: float) -> NDArray[Any] | None:
        try:
            data = (self._folder / name).read_bytes()
        except OSError:
            return None  # gone again
        if is_whole(data):
            self._done[name] = one.mark
            del self._pending[name]
            try:
                return decode_image(data)
            except ModelError as error:
                log.warning("%s is left out: %s", self._folder / name, error)
        elif now - one.since >= DAMAGED_S:
            self._done[name] = one.mark
            del self._pending[name]
            log.warning("%s is left out: it was not written to its end", self._folder / name)
        return None

    def _look(self) -> dict[str, tuple[int, int]]:
        """Time and size of each picture."""
        begun, state, found = time.monotonic(), _state(self._folder), {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if _is_picture(entry.name) and entry.is_file():
                        status = entry.stat()
                        found[entry.name] = (status.st_mtime_ns, status.st_size)
        except FileNotFoundError as error:
            if not self._folder.is_dir():
                raise DeviceError(f"There is no folder {self._folder}.") from error
        except OSError as error:
            raise DeviceError(
                f"The folder {self._folder} cannot be read.", why=f"{error.strerror}."
            ) from error
        ended = time.monotonic()
        fresh = state is None or abs(time.time() - state[0] / 1e9) < COARSE_S
        self._looked = _Look(at=ended, took=ended - begun, state=state, fresh=fresh)
        return found

    def _look_at(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Time and size of these, as far as they are there."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError):
                status = (self._folder / name).stat()
                found[name] = (status.st_mtime_ns, status.st_size)
        return found


class _Look(msgspec.Struct, frozen=True, kw_only=True):
    """When the whole folder was read, how long that took, and what the folder's state was then.

    A state that was `fresh` may hide a change behind it, on file systems with a coarse clock.
    """

    at: float = float("-inf")
    took: float = 0.0
    state: tuple[int, ...] | None = None
    fresh: bool = True

    def is_due(self, now: float, state: tuple[int, ...] | None) -> bool:
        """Whether to read it again: it changed, or a file in it may have without a sign."""
        quiet = now - self.at
        if self.fresh or state != self.state or state is None:
            return quiet >= BUSY * self.took
        return quiet >= max(AGAIN_S, IDLE * self.took)


class _Pending(msgspec.Struct, frozen=True):
    """A file as it was seen, and since when it is so."""

    mark: tuple[int, int]
    since: float


def is_whole(data: bytes) -> bool:
    """Whether a picture's file is there to its end; what is no picture is for the decoder."""
    if len(data) < _LEAST_PICTURE:
        return False
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in data[-1024:]  # some cameras write a few bytes behind
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-16:]
    if data.startswith(b"RIFF"):
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    if data.startswith(b"BM"):
        return len(data) >= int.from_bytes(data[2:6], "little")
    return True


def open_images(config: SourceConfig, _stop: threading.Event) -> ImagesReader:
    """`images:///path/to/folder`."""
    return ImagesReader(Path(address(config.uri).path))


def open_watched(config: SourceConfig, stop: threading.Event) -> WatchReader:
    """`watch:///path/to/folder`."""
    return WatchReader(Path(address(config.uri).path), stop)


@lru_cache(maxsize=1024)
def _say_left_out(file: Path, why: str) -> None:
    """Say it once, however often the folder is played."""
    log.warning("%s is left out: %s", file, why)


def _state(folder: Path) -> tuple[int, ...] | None:
    """What changes when a name in a folder does, its time first; None where it is not there."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_dev)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
