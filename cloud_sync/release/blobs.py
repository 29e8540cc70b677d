"""A folder of content-addressed blobs, as in an OCI image layout: `blobs/sha256/<hex>`.

What is in it under a digest has that digest: files are written beside, fsynced, hashed and
renamed, and verified again when they are read.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeml.errors import ReleaseError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20


def digest_of(data: bytes) -> str:
    """The digest of some bytes, `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: str) -> bool:
    """Whether a text is a digest that edgeml accepts: sha256, lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


class Blobs:
    """The blobs below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where a blob is or would be.

        Raises:
            ReleaseError: the text is no digest.
        """
        if not is_digest(digest):
            raise ReleaseError(
                f"{digest[:80]!r} is no digest.", why="A digest is sha256: and 64 hex digits."
            )
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def part(self, digest: str) -> Path:
        """Where a blob waits that has not come whole."""
        final = self.path(digest)
        return final.with_name(f".{final.name}.part")

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self.path(digest).is_file()

    def all(self) -> Iterator[str]:
        """The digests of all blobs, sorted."""
        folder = self.folder / "blobs" / "sha256"
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        yield from (f"sha256:{name}" for name in names if is_digest(f"sha256:{name}"))

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest."""
        digest = digest_of(data)
        if not self.has(digest):
            with self.writing(digest) as beside:
                beside.write_bytes(data)
        return digest

    def put_file(self, file: Path) -> str:
        """Store a copy of a file and return its digest."""
        digest = file_digest(file)
        if not self.has(digest):
            with self.writing(digest) as beside:
                shutil.copyfile(file, beside)
        return digest

    @contextmanager
    def writing(self, digest: str) -> Iterator[Path]:
        """A path to write a blob's bytes to; verified, fsynced and renamed at the end.

        Raises:
            ReleaseError: what was written does not have the digest; it is removed.
        """
        final = self.path(digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=final.parent, prefix=".new-")
        os.close(handle)
        beside = Path(name)
        try:
            yield beside
            self.adopt(beside, digest)
        finally:
            beside.unlink(missing_ok=True)

    def adopt(self, file: Path, digest: str) -> None:
        """Move a file of the same file system in as a blob, if it has the digest.

        Raises:
            ReleaseError: it has another one.
        """
        found = file_digest(file)
        if found != digest:
            raise ReleaseError(
                "A blob is not what its digest says.",
                why=f"Wanted {digest}, got {found}.",
                fix="It was damaged or swapped on the way; fetch it again.",
            )
        self.adopt_known(file, digest)

    def adopt_known(self, file: Path, digest: str) -> None:
        """Move a file of the same file system in whose digest was computed as it was written."""
        final = self.path(digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
        file.chmod(0o644)
        os.replace(file, final)
        sync_folder(final.parent)

    def read(self, digest: str, max_bytes: int) -> bytes:
        """Read a small blob and verify it.

        Raises:
            ReleaseError: it is missing, too large, or not what its digest says.
        """
        path = self.path(digest)
        try:
            with path.open("rb") as stream:
                data = stream.read(max_bytes + 1)
        except FileNotFoundError:
            raise ReleaseError(f"The blob {digest} is missing.") from None
        if len(data) > max_bytes:
            raise ReleaseError(
                f"The blob {digest} is too large.", why=f"At most {max_bytes} bytes are read here."
            )
        if digest_of(data) != digest:
            raise ReleaseError(
                f"The blob {digest} is damaged.", why=f"Its bytes have {digest_of(data)}."
            )
        return data

    def verify(self, digest: str) -> None:
        """Check a blob of any size.

        Raises:
            ReleaseError: it is missing or not what its digest says.
        """
        path = self.path(digest)
        if not path.is_file():
            raise ReleaseError(f"The blob {digest} is missing.")
        found = file_digest(path)
        if found != digest:
            raise ReleaseError(f"The blob {digest} is damaged.", why=f"Its bytes have {found}.")

    def remove(self, digest: str) -> None:
        """Remove a blob, if it is there."""
        self.path(digest).unlink(missing_ok=True)


def file_digest(file: Path) -> str:
    """The digest of a file, streamed."""
    with file.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is either the old or the new one, whatever happens."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
