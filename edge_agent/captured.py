"""Frames that a device keeps for the next training, as its configuration's capture policy says.

    captured/digits/1795279438921-belt-17.png     what the model saw; .npy of what is no picture
    captured/digits/1795279438921-belt-17.json    its line in results.jsonl, with the release

They are chosen in the worker's thread, which copies one now and then, and are written by a thread
of their own: while that is busy none is taken. What is kept is bounded for each model, and leaves
the last of the disk to updates and records. The line is written last, and so a frame that has one
is whole; `edge_agent.sample_upload` brings them to the fleet where the policy says so.
"""

import contextlib
import hashlib
import io
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloud_sync.messages import CapturePolicy
from cloud_sync.release import write_atomically
from cloud_sync.samples import CaptureReason, reason_of
from edge_agent.mailbox import Frame
from edge_agent.room import require_room
from edgeml.errors import DeviceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_agent.loaded import LoadedRelease

log = logging.getLogger(__name__)

_PICTURE_AXES = (2, 3)
_COLOURS = (1, 3)
_MAX_NAME = 128  # a file's name has 255 bytes at most, with what is written beside it


def is_wanted(policy: CapturePolicy, number: int, line: Mapping[str, Any]) -> bool:
    """Whether a policy wants a frame: the `number`-th of its model, with this line of results.

    >>> is_wanted(CapturePolicy(), 1, {"confident": False})
    True
    >>> is_wanted(CapturePolicy(unsure=False, one_in=10), 20, {"confident": True})
    True
    """
    if policy.one_in and number % policy.one_in == 0:
        return True
    return policy.unsure and reason_of(line) is not CaptureReason.ONE_IN


class CapturedFrames:
    """See the module. `offer` is called by the workers of all models.

    Args:
        folder: where frames are kept, a folder for each model.
        policies: the policies of this moment, by model.
    """

    def __init__(self, folder: Path, policies: Callable[[], Mapping[str, CapturePolicy]]) -> None:
        self._folder = folder
        self._policies = policies
        self._seen: dict[str, int] = {}
        self._taken: dict[str, float] = {}
        self._waiting: queue.Queue[tuple[CapturePolicy, Frame, Any, dict[str, Any]] | None] = (
            queue.Queue(1)
        )
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._failing = False

    def offer(
        self, frame: Frame, line: dict[str, Any], loaded: "LoadedRelease | None" = None
    ) -> None:
        """Take a frame that is done, if it is wanted and not too soon after the last.

        Args:
            frame: the frame.
            line: of its result.
            loaded: what ran; without it the whole frame is kept.
        """
        model = line["model"]
        policy = self._policies().get(model)
        if policy is None:
            return
        number = self._seen[model] = self._seen.get(model, 0) + 1
        now = time.monotonic()
        soon = model in self._taken and now < self._taken[model] + policy.every_s
        if soon or self._waiting.full() or not is_wanted(policy, number, line):
            return
        if loaded is not None:
            line = line | {"release": loaded.desired.release}
        try:
            self._waiting.put_nowait((policy, frame, _seen(frame.image, loaded).copy(), line))
        except queue.Full:
            return  # another model's worker was quicker
        self._taken[model] = now
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="captured", daemon=True)
                self._thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what was taken, and end; a disk that hangs is not waited for."""
        if self._thread is None:
            return
        try:
            self._waiting.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (one := self._waiting.get()) is not None:
            policy, frame, image, line = one
            try:
                self._write(policy, frame, image, line)
                self._failing = False
            except Exception as error:  # noqa: BLE001 -- no frame may end the thread
                if not self._failing:
                    log.warning("frames cannot be kept in %s: %s", self._folder, error)
                self._failing = True

    def _write(
        self, policy: CapturePolicy, frame: Frame, image: "NDArray[Any]", line: dict[str, Any]
    ) -> None:
        folder = self._folder / named(line["model"])
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        suffix, data = _encoded(image)
        said = json.dumps(line, separators=(",", ":")).encode()
        most, size = policy.keep_mb << 20, len(data) + len(said)
        if size > most:
            raise DeviceError(f"A frame has {size} bytes, keep_mb allows {most}.")
        _make_room(folder, most - size)
        require_room(folder, size, 2, "the frame")
        name = f"{round(line['t'] * 1000):013}-{named(frame.source)}-{frame.index}"
        write_atomically(folder / f"{name}{suffix}", data, 0o600)
        write_atomically(folder / f"{name}.json", said, 0o600)


def named(name: str) -> str:
    """A name as that of a file; a long one keeps its beginning and has a digest of the whole.

    >>> named("a/b"), named(".."), len(named("long" * 100))
    ('a%2Fb', '%2E%2E', 128)
    """
    safe = quote(name, safe="")
    if not safe.strip("."):
        return safe.replace(".", "%2E")
    if len(safe) <= _MAX_NAME:
        return safe
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{safe[: _MAX_NAME - len(digest) - 1]}-{digest}"


def _seen(image: "NDArray[Any]", loaded: "LoadedRelease | None") -> "NDArray[Any]":
    """What a release looks at of a frame: its region, where it has one."""
    if loaded is None or loaded.region is None:
        return image
    from hardware.pipeline.geometry import cut

    return cut(image, loaded.region)


def _encoded(image: "NDArray[Any]") -> tuple[str, bytes]:
    """A frame without loss: a PNG, or an array where it is no picture."""
    import numpy as np

    colours = image.shape[2] if image.ndim == _PICTURE_AXES[1] else 1
    if image.dtype == np.uint8 and image.ndim in _PICTURE_AXES and colours in _COLOURS:
        import cv2

        done, data = cv2.imencode(".png", image)
        if done:
            return ".png", data.tobytes()
    stream = io.BytesIO()
    np.save(stream, image, allow_pickle=False)
    return ".npy", stream.getvalue()


def _make_room(folder: Path, most: int) -> None:
    """Delete the oldest until so many bytes are left at most; a name begins with its time."""
    sizes: dict[Path, int] = {}
    for file in sorted(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # it was brought to the fleet just now
            sizes[file] = file.stat().st_size
    total = sum(sizes.values())
    for file, size in sizes.items():
        if total <= most:
            return
        file.unlink(missing_ok=True)
        total -= size
