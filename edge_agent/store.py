"""The releases on this device: verified blobs, and nothing that no release refers to.

Several models fetch at the same time: one of them at a time has a blob, and nothing is
removed while anyone is at work.
"""

import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloud_sync.release import Blobs, Variant, is_digest, read_variant
from cloud_sync.release.closure import documents_of, on_devices
from edge_agent.failpoints import reach
from edge_agent.room import require_room
from edgeml.errors import ReleaseError

WAIT_S = 0.1


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

    def variant(self, release: str, variant: str) -> Variant:
        """A variant of a release whose documents are here.

        Raises:
            ReleaseError: something of it is missing or damaged.
        """
        return read_variant(self.blobs.read, release, variant)

    def path(self, variant: Variant, role: str) -> Path:
        """Where a variant's file is."""
        return self.blobs.path(variant.file(role).digest)

    def compiled(self, variant: Variant) -> Path:
        """The folder for what a runtime makes of a variant's model on this machine."""
        digest = variant.file("model").digest
        return self.blobs.folder / "compiled" / digest.removeprefix("sha256:")

    def needed(self, variant: Variant) -> dict[str, int]:
        """The blobs, with their sizes, that a device keeps of a variant."""
        return on_devices(variant)

    def require_room(self, needed: int, files: int = 1) -> None:
        """Check that the disk has room for a download of so many bytes in so many files.

        Raises:
            DeviceError: it has not, or is read-only.
        """
        require_room(self.blobs.folder, needed, files)

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
        folder = self.blobs.folder / "blobs" / "sha256"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        stale = litter(names, keep)
        for name in stale:
            reach("collect")
            (folder / name).unlink(missing_ok=True)
            reach("collected")
        for compiled in (self.blobs.folder / "compiled").glob("*"):
            if f"sha256:{compiled.name}" not in keep:
                shutil.rmtree(compiled, ignore_errors=True)
        return len(stale)

    def _refers(self, release: str, variant: str) -> set[str]:
        if not self.blobs.has(release):
            return set()
        found = self.variant(release, variant)
        return documents_of(self.blobs.read, release, found) | set(self.needed(found))


def litter(names: Iterable[str], keep: Collection[str]) -> list[str]:
    """Which files of the blobs' folder go: pure.

    Args:
        names: of the files that are there.
        keep: the digests that are referred to; what has come of them so far stays, too, so that
            their download goes on where it stopped.
    """
    hexes = {digest.removeprefix("sha256:") for digest in keep}
    parts = {f".{name}.part" for name in hexes}
    return sorted(
        name
        for name in names
        if name not in parts
        and (name.startswith(".") or (is_digest(f"sha256:{name}") and name not in hexes))
    )
