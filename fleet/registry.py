"""The registry: a folder that holds releases as an OCI registry would.

    registry/blobs/sha256/<hex>                    blobs and manifests, shared by all models
    registry/models/<model>/manifests/<hex>        media type of a manifest of that model
    registry/models/<model>/tags/<version>         digest; a tag is set once
    registry/models/<model>/referrers/<hex>/<hex>  artifacts whose subject is the former
    registry/uploads/<id>                          pushes that are under way

Blobs come in through `Upload`, verified and renamed; a manifest is taken only when everything
that it points to is there. Nothing is ever changed in place, so a reader needs no lock.
"""

import contextlib
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cloud_sync.release import (
    Blobs,
    Release,
    digest_of,
    is_digest,
    oci,
    read_release,
    write_atomically,
)
from cloud_sync.release.reading import check_model, check_version
from edgeml.errors import DeviceError, ReleaseError, UserError

MAX_UPLOAD_BYTES = oci.MAX_BLOB_BYTES
STALE_UPLOAD_S = 86400.0
_SPARE_BYTES = 16 << 20
_TOUCH_S = 3600.0
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_MANIFEST_TYPES = frozenset({oci.INDEX, oci.MANIFEST})


class StoredManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest as it was pushed."""

    digest: str
    media_type: str
    data: bytes


class Registry:
    """The registry in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = Blobs(folder)
        self._uploads = folder / "uploads"
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Make the folder, and drop what pushes left behind long ago."""
        self._uploads.mkdir(parents=True, exist_ok=True)
        for left in self._uploads.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a push that ended just now
                if time.time() - left.stat().st_mtime > STALE_UPLOAD_S:
                    left.unlink()

    def begin_upload(self) -> str:
        """Begin a push and return its id.

        Raises:
            DeviceError: the disk is full.
        """
        self._uploads.mkdir(parents=True, exist_ok=True)
        upload = uuid.uuid4().hex
        self._check_room(0)
        (self._uploads / upload).touch(mode=0o600)
        return upload

    def upload_size(self, upload: str) -> int:
        """How many bytes of a push have come.

        Raises:
            ReleaseError: there is no such push.
        """
        return self._upload_path(upload).stat().st_size

    def append(self, upload: str, chunk: bytes) -> int:
        """Add bytes to a push; returns its size.

        Raises:
            ReleaseError: there is no such push, or it is too large.
            DeviceError: the disk is full.
        """
        path = self._upload_path(upload)
        self._check_room(len(chunk))
        with path.open("ab") as stream:
            if stream.tell() + len(chunk) > MAX_UPLOAD_BYTES:
                raise ReleaseError("The blob is too large for the registry.")
            stream.write(chunk)
            return stream.tell()

    def finish_upload(self, upload: str, digest: str) -> None:
        """Take what was pushed as the blob `digest`; the push ends either way.

        Raises:
            ReleaseError: what came has another digest, or there is no such push.
        """
        path = self._upload_path(upload)
        try:
            self.blobs.adopt(path, digest)
        finally:
            path.unlink(missing_ok=True)

    def cancel_upload(self, upload: str) -> None:
        """End a push."""
        self._upload_path(upload).unlink(missing_ok=True)

    def put_manifest(self, model: str, reference: str, media_type: str, data: bytes) -> str:
        """Take a manifest or index by digest or tag, and return its digest.

        Raises:
            ReleaseError: it is malformed, not what the reference says, or something that it
                points to is missing.
            UserError: the tag names another manifest already.
        """
        check_model(model)
        if len(data) > oci.MAX_DOCUMENT_BYTES:
            raise ReleaseError("The manifest is too large.")
        digest = digest_of(data)
        by_tag = not is_digest(reference)
        if by_tag:
            check_version(reference)
        elif digest != reference:
            raise ReleaseError(
                "The manifest is not what its digest says.",
                why=f"Wanted {reference}, got {digest}.",
            )
        subject = self._check_manifest(model, media_type, data)
        home = self._home(model)
        tag = home / "tags" / reference
        if by_tag and tag.is_file() and tag.read_text() != digest:
            raise UserError(
                f"{model}:{reference} exists already, as another release.",
                why="A release is immutable.",
                fix="Give the new release another version.",
            )
        self.blobs.put(data)
        self.blob(digest)
        _mark(home / "manifests" / _hex(digest), media_type)
        if subject:
            _mark(home / "referrers" / _hex(subject) / _hex(digest), media_type)
        if by_tag:
            _mark(tag, digest)
        return digest

    def manifest(self, model: str, reference: str) -> StoredManifest | None:
        """The manifest of that digest or tag, verified; None where the model has none such.

        Raises:
            ReleaseError: the name, the reference or the stored bytes are damaged.
        """
        home = self._home(check_model(model))
        if not is_digest(reference):
            tag = home / "tags" / check_version(reference)
            if not tag.is_file():
                return None
            reference = tag.read_text()
        marker = home / "manifests" / _hex(reference)
        if not marker.is_file():
            return None
        data = self.blobs.read(reference, oci.MAX_DOCUMENT_BYTES)
        return StoredManifest(digest=reference, media_type=marker.read_text(), data=data)

    def blob(self, digest: str) -> Path | None:
        """The file of a blob, or None.

        Raises:
            ReleaseError: the text is no digest.
        """
        path = self.blobs.path(digest)
        with self._lock:
            if not path.is_file():
                return None
            # What is asked for is in use, and no garbage for as long as the grace lasts.
            if time.time() - path.stat().st_mtime > _TOUCH_S:
                os.utime(path)
        return path

    def age_s(self, digest: str) -> float:
        """Seconds since a blob was stored, pushed again or asked for."""
        return time.time() - self.blobs.path(digest).stat().st_mtime

    def remove(self, digest: str, grace_s: float) -> bool:
        """Remove a blob unless it came into use meanwhile; whether it was removed."""
        with self._lock:
            if not self.blobs.has(digest) or self.age_s(digest) < grace_s:
                return False
            self.blobs.remove(digest)
            return True

    def release(self, digest: str) -> Release:
        """Read a pushed release, strictly.

        Raises:
            ReleaseError: it is incomplete or damaged.
        """
        release = read_release(self._read_in_use, digest)
        missing = sorted(
            {f.digest for v in release.variants for f in v.files if self.blob(f.digest) is None}
        )
        if missing:
            raise ReleaseError(
                f"{release.name} is incomplete.",
                why=f"{len(missing)} of its blobs are missing, first {missing[0]}.",
                fix="Push it again.",
            )
        return release

    def _read_in_use(self, digest: str, max_bytes: int) -> bytes:
        self.blob(digest)
        return self.blobs.read(digest, max_bytes)

    def referrers(self, model: str, digest: str) -> list[oci.Descriptor]:
        """The artifacts about a manifest: evidence.

        Raises:
            ReleaseError: the digest or a stored manifest is damaged.
        """
        folder = self._home(check_model(model)) / "referrers" / _hex(digest)
        return [self._describe(name) for name in sorted(_names(folder))]

    def _describe(self, name: str) -> oci.Descriptor:
        digest = f"sha256:{name}"
        data = self.blobs.read(digest, oci.MAX_DOCUMENT_BYTES)
        manifest = oci.from_json(data, oci.Manifest, "manifest")
        return oci.Descriptor(
            media_type=oci.MANIFEST,
            digest=digest,
            size=len(data),
            artifact_type=manifest.artifact_type,
            annotations=manifest.annotations,
        )

    def _check_manifest(self, model: str, media_type: str, data: bytes) -> str:
        """Check that all a manifest points to is there; returns its subject's digest."""
        if media_type not in _MANIFEST_TYPES:
            raise ReleaseError(f"A manifest of the type {media_type[:80]!r} is not taken.")
        if media_type == oci.INDEX:
            index = oci.from_json(data, oci.Index, "index")
            for entry in index.manifests:
                marker = self._home(model) / "manifests" / _hex(entry.digest)
                if not marker.is_file() or self.blob(entry.digest) is None:
                    raise ReleaseError(f"The manifest {entry.digest} was not pushed before.")
            return ""
        manifest = oci.from_json(data, oci.Manifest, "manifest")
        for blob in (manifest.config, *manifest.layers):
            path = self.blob(blob.digest)
            if path is None:
                raise ReleaseError(f"The blob {blob.digest} was not pushed before.")
            if path.stat().st_size != blob.size:
                raise ReleaseError(f"The blob {blob.digest} has another size than {blob.size}.")
        return manifest.subject.digest if manifest.subject else ""

    def _home(self, model: str) -> Path:
        return self.folder / "models" / model

    def _upload_path(self, upload: str) -> Path:
        path = self._uploads / upload
        if not _UPLOAD_ID.fullmatch(upload) or not path.is_file():
            raise ReleaseError("There is no such upload.", fix="Begin the push again.")
        return path

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._uploads).free
        if free < needed + _SPARE_BYTES:
            raise DeviceError(
                "The registry's disk is full.",
                why=f"{free} bytes are free.",
                fix=f"Free some space on the disk of {self.folder}.",
            )


def _mark(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())


def _hex(digest: str) -> str:
    if not is_digest(digest):
        raise ReleaseError(f"{digest[:80]!r} is no digest.")
    return digest.removeprefix("sha256:")


def _names(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        yield from (p.name for p in folder.iterdir() if is_digest(f"sha256:{p.name}"))
