"""Captured frames on the fleet's disk: a folder for each model and device.

    samples/digits/cam-1/coming/<hex>.json    what the device says of a frame, before its first byte
    samples/digits/cam-1/coming/<hex>.part    as much of it as has come
    samples/digits/cam-1/<hex>.json           what it said of one that is whole
    samples/digits/cam-1/<hex>.png            the frame, which has that digest; .npy is no picture

Nothing is shared between devices: whoever knows a digest proves nothing by it, and what is to be
forgotten of a device is a folder. The line lies beside the frame so that a database that was
restored can take up what came since (`fleet.services.samples`).
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from cloud_sync.messages import encode
from cloud_sync.release import is_digest, write_atomically
from cloud_sync.release.blobs import file_digest, sync_folder
from cloud_sync.release.reading import check_model
from cloud_sync.samples import MediaType, SampleOffer
from cloud_sync.trust.identity import check_device_id
from edgeml.errors import DeviceError, ReleaseError
from fleet.problem import Conflict

SPARE_BYTES = 1 << 30  # pictures leave the rest of the disk to releases and the database
STALE_S = 30 * 86400.0
MAX_COMING = 16  # of a device and a model; one that begins more gives up the oldest
_COMING = "coming"


class SampleFolder:
    """See the module; any number of threads and processes may use it.

    Args:
        folder: where it is; made when the first frame comes.
        spare_bytes: what is left free on the disk.
    """

    def __init__(self, folder: Path, spare_bytes: int = SPARE_BYTES) -> None:
        self.folder = folder
        self._spare_bytes = spare_bytes

    def path(self, model: str, device: str, digest: str, suffix: str) -> Path:
        """Where a frame, or something about it, is or would be.

        Raises:
            ReleaseError: one of the names is none.
        """
        if not is_digest(digest):
            raise ReleaseError(f"{digest[:80]!r} is no digest.")
        name = digest.removeprefix("sha256:") + suffix
        return self.folder / check_model(model) / check_device_id(device) / name

    def begin(self, offer: SampleOffer) -> int:
        """Keep what is said of a frame; returns how much of it is here.

        Raises:
            DeviceError: the disk is full.
        """
        if self.whole(offer).exists():
            return offer.size
        self._require_room(offer.size)
        said = self._coming(offer)
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        said.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        if self.read(said) != offer:
            _make_room(said.parent)
            write_atomically(said, encode(offer), 0o600)
        part = said.with_suffix(".part")
        return part.stat().st_size if part.exists() else 0

    def coming(self, model: str, device: str, digest: str) -> SampleOffer | None:
        """What was said of a frame that has not come whole, or has just now; None if nothing.

        Raises:
            ReleaseError: one of the names is none.
        """
        whole = self.path(model, device, digest, ".json")
        return self.read(whole.parent / _COMING / whole.name) or self.read(whole)

    def append(self, offer: SampleOffer, offset: int, data: bytes) -> int:
        """Add a piece of a frame; one that does not begin where it stands is passed over.

        Returns:
            How much of it is here; all of it where it is whole and has its digest.

        Raises:
            DeviceError: the disk is full.
            Conflict: what came is not what the digest says; it begins anew.
        """
        frame = self.whole(offer)
        self._require_room(len(data))
        said = self._coming(offer)
        with _alone_with(said.with_suffix(".part")) as part:
            if frame.exists():
                said.with_suffix(".part").unlink(missing_ok=True)
                return offer.size
            size = part.seek(0, os.SEEK_END)
            if offset == size:
                size += part.write(data[: max(0, offer.size - size)])
                part.flush()
            if size < offer.size:
                return size
            _finish(part, said, frame, offer.digest)
        return offer.size

    def whole(self, offer: SampleOffer) -> Path:
        """Where an offered frame is when it is whole."""
        return self.path(offer.model, offer.device, offer.digest, offer.media_type.suffix)

    def remove(self, model: str, device: str, digest: str) -> None:
        """Remove a frame and what is said of it; the line last, so that it can be done again."""
        for suffix in (*(kind.suffix for kind in MediaType), ".json"):
            self.path(model, device, digest, suffix).unlink(missing_ok=True)

    def forget(self, device: str) -> None:
        """Remove all frames of a device."""
        for folder in self.folder.glob(f"*/{check_device_id(device)}"):
            shutil.rmtree(folder)

    def read(self, said: Path) -> SampleOffer | None:
        """What is said of a frame, by its file; None where it cannot be read."""
        try:
            return msgspec.json.decode(said.read_bytes(), type=SampleOffer)
        except (OSError, msgspec.DecodeError):
            return None

    def devices(self) -> Iterator[tuple[str, str]]:
        """The models and devices of which there are frames."""
        for folder in self.folder.glob("*/*"):
            yield folder.parent.name, folder.name

    def digests(self, model: str, device: str) -> set[str]:
        """The frames of a device that are whole."""
        folder, kinds = self.folder / model / device, {kind.suffix for kind in MediaType}
        found = folder.iterdir() if folder.is_dir() else ()
        return {f"sha256:{path.stem}" for path in found if path.suffix in kinds}

    def sweep(self, model: str, device: str, older_s: float) -> None:
        """Remove what began to come so long ago, and came no further."""
        for path in (self.folder / model / device / _COMING).glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= older_s:
                    path.unlink()

    def _coming(self, offer: SampleOffer) -> Path:
        whole = self.path(offer.model, offer.device, offer.digest, ".json")
        return whole.parent / _COMING / whole.name

    def _require_room(self, size: int) -> None:
        place = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        if free < size + self._spare_bytes:
            raise DeviceError(
                "The fleet has no room for captured frames.",
                why=f"{free} bytes are free on the disk of {self.folder}, and "
                f"{self._spare_bytes} are left to releases and the database.",
                fix="Free some space, or keep fewer: --keep-samples-days, --keep-samples-gb.",
            )


def _make_room(folder: Path) -> None:
    """Give up the oldest of what has begun to come, where there is too much of it."""
    begun = {path: path.stat().st_mtime for path in folder.glob("*.json")}
    for path in sorted(begun, key=begun.__getitem__)[: max(0, len(begun) + 1 - MAX_COMING)]:
        path.with_suffix(".part").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _finish(part: BinaryIO, said: Path, frame: Path, digest: str) -> None:
    """Have what came be the frame, if it is."""
    beside = said.with_suffix(".part")
    if file_digest(beside) != digest:
        part.truncate(0)
        raise Conflict(
            "A captured frame was refused.",
            why="What came is not what its digest says.",
            fix="The device sends it again.",
        )
    os.fsync(part.fileno())
    with contextlib.suppress(FileNotFoundError):  # this was done before, and cut short
        said.replace(frame.with_suffix(".json"))
    beside.replace(frame)
    sync_folder(frame.parent)


@contextmanager
def _alone_with(path: Path) -> Iterator[BinaryIO]:
    """A file that nobody else writes meanwhile, opened for appending; made if it is not there.

    Raises:
        DeviceError: the disk does not take it.
    """
    try:
        with path.open("ab") as stream:
            path.chmod(0o600)
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream
    except OSError as error:
        raise DeviceError(
            "A captured frame cannot be stored.",
            why=f"{error}.",
            fix=f"Check the disk of {path.parent}.",
        ) from error
