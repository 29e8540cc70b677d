"""The releases on this device: verified blobs, and nothing that no release refers to.

Several models fetch at the same time: one of them at a time has a blob, and nothing is
removed while anyone is at work.
"""

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloud_sync.release import Blobs, Release, Variant, read_release
from cloud_sync.release.oci import MAX_DOCUMENT_BYTES, Manifest, from_json
from edge_agent.failpoints import reach
from edgeml.errors import DeviceError, ReleaseError

SPARE_BYTES = 8 << 20
WAIT_S = 0.1
# Files that a device has no use for: reports are read by people.
_NOT_HERE = frozenset({"report", "recipe"})


class ReleaseStore:
    """Blobs below the agent's data folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.blobs = Blobs(folder)
        self._lock = threading.Lock()
        self._users = 0
        self._fetching: dict[str, threading.Lock] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep everything that is here while the block lasts."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1

    @contextmanager
    def alone_with(self, digest: str, pause: Callable[[float], None]) -> Iterator[None]:
        """Be the only one to fetch a blob; `pause` is called while another does, and may raise."""
        lock = self._fetching.setdefault(digest, threading.Lock())
        while not lock.acquire(blocking=False):
            pause(WAIT_S)
        try:
            yield
        finally:
            lock.release()

    def release(self, digest: str) -> Release:
        """A release whose documents are here.

        Raises:
            ReleaseError: something of it is missing or damaged.
        """
        return read_release(self.blobs.read, digest)

    def variant(self, release: str, variant: str) -> Variant:
        """A variant of a release that is here."""
        return self.release(release).variant(variant)

    def path(self, variant: Variant, role: str) -> Path:
        """Where a variant's file is."""
        return self.blobs.path(variant.file(role).digest)

    def compiled(self, variant: Variant) -> Path:
        """The folder for what a runtime makes of a variant's model on this machine."""
        digest = variant.file("model").digest
        return self.blobs.folder / "compiled" / digest.removeprefix("sha256:")

    def needed(self, variant: Variant) -> dict[str, int]:
        """The blobs, with their sizes, that a device keeps of a variant."""
        return {f.digest: f.size for f in variant.files if f.role not in _NOT_HERE}

    def require_room(self, needed: int) -> None:
        """Check that the disk has room for a download.

        Raises:
            DeviceError: it has not.
        """
        free = shutil.disk_usage(self.blobs.folder).free
        if free < needed + SPARE_BYTES:
            raise DeviceError(
                "The disk has no room for the release.",
                why=f"{needed} bytes are needed and {SPARE_BYTES} to spare, {free} are free.",
                fix=f"Free some space on the disk of {self.blobs.folder}, then roll out again.",
            )

    def check(self, digest: str) -> None:
        """Verify a blob, and remove it where it is damaged, so that it can be fetched again.

        Raises:
            ReleaseError: it is missing, was damaged or cannot be read.
        """
        try:
            self.blobs.verify(digest)
        except ReleaseError:
            self.blobs.remove(digest)
            raise
        except OSError as error:
            self.blobs.remove(digest)
            raise ReleaseError(
                f"The blob {digest} cannot be read.", why=f"{error.strerror}."
            ) from error

    def document(self, digest: str, max_bytes: int) -> bytes | None:
        """A document that is here and whole; None where it has to be fetched (again)."""
        if not self.blobs.has(digest):
            return None
        try:
            return self.blobs.read(digest, max_bytes)
        except (ReleaseError, OSError):
            self.blobs.remove(digest)
            return None

    def keep_only(self, wanted: Callable[[], Iterable[tuple[str, str]]]) -> int | None:
        """Remove every blob that none of these (release, variant) refers to; returns how many.

        What a crash left half-written goes, too. None while the store is in use: nothing is
        removed then.

        Raises:
            ReleaseError: one of the wanted cannot be read; then nothing is removed.
        """
        with self._lock:
            return None if self._users else self._keep_only(wanted())

    def _keep_only(self, wanted: Iterable[tuple[str, str]]) -> int:
        keep: set[str] = set()
        for release, variant in wanted:
            keep |= self._refers(release, variant)
        stale = [self.blobs.path(digest) for digest in self.blobs.all() if digest not in keep]
        parts = {f".{self.blobs.path(digest).name}.part" for digest in keep}
        half = (self.blobs.folder / "blobs" / "sha256").glob(".*")
        stale += [file for file in half if file.name not in parts]
        for file in stale:
            reach("collect")
            file.unlink(missing_ok=True)
            reach("collected")
        for folder in (self.blobs.folder / "compiled").glob("*"):
            if f"sha256:{folder.name}" not in keep:
                shutil.rmtree(folder, ignore_errors=True)
        return len(stale)

    def _refers(self, release: str, variant: str) -> set[str]:
        if not self.blobs.has(release):
            return set()
        found = self.release(release)
        # A release's documents are needed to read it, whichever variant runs.
        keep = {release, *(v.digest for v in found.variants)}
        for entry in found.variants:
            manifest = from_json(
                self.blobs.read(entry.digest, MAX_DOCUMENT_BYTES), Manifest, "variant's manifest"
            )
            keep.add(manifest.config.digest)
        return keep | set(self.needed(found.variant(variant)))
