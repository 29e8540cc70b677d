"""Blobs over HTTP by digest: resumed across restarts, hashed as they come, never half in place.

A blob is written to a `.part` file beside the blobs and goes on where it stopped (Range with
If-Range), after a cut as after a restart. What has another digest is thrown away and refused.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from cloud_sync.release import Blobs, Layout, Release, digest_of, is_digest, oci
from cloud_sync.release.reading import read_release
from edgeml.errors import DeviceError, ReleaseError, RemoteError

ATTEMPTS = 5
BACKOFF_S = 0.5
SPARE_BYTES = 4 << 20
TIMEOUT = httpx.Timeout(30.0, connect=10.0)

OnBytes = Callable[[int], None]


class Transport:
    """Where blobs come from: a base URL and the headers or the auth that it wants.

    Redirects to another host (an object store) are followed without the credentials.
    """

    def __init__(self, base_url: str, auth: httpx.Auth | None = None) -> None:
        self.client = httpx.Client(
            base_url=base_url, auth=auth, timeout=TIMEOUT, follow_redirects=True
        )

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class OciClient:
    """Pulls and pushes releases over the OCI distribution routes of one registry."""

    def __init__(
        self,
        base_url: str,
        auth: httpx.Auth | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = Transport(base_url, auth)
        self._sleep = sleep

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def document(self, name: str, digest: str, max_bytes: int = oci.MAX_DOCUMENT_BYTES) -> bytes:
        """A manifest, index or other small blob, verified.

        Raises:
            RemoteError: the registry cannot be reached or does not have it.
            ReleaseError: it is not what its digest says.
        """
        for kind in ("manifests", "blobs"):
            response = self._request("GET", f"/v2/{name}/{kind}/{digest}")
            if response.status_code == httpx.codes.NOT_FOUND and kind == "manifests":
                continue
            _check(response, digest)
            if len(response.content) > max_bytes or digest_of(response.content) != digest:
                raise ReleaseError(
                    f"The registry gave something else for {digest}.",
                    why=f"It gave {len(response.content)} bytes with "
                    f"{digest_of(response.content)}.",
                )
            return response.content
        raise AssertionError

    def release(self, name: str, digest: str) -> Release:
        """Read a release's index, manifests and configs from the registry."""
        return read_release(lambda d, limit: self.document(name, d, limit), digest)

    def fetch_blob(
        self, name: str, digest: str, size: int, blobs: Blobs, on_bytes: OnBytes | None = None
    ) -> int:
        """Fetch a blob into a store, unless it is there; returns the bytes that were received.

        Raises:
            DeviceError: the disk has no room for it.
            RemoteError: the registry cannot be reached, lacks it, or sends the wrong length.
            ReleaseError: what came is not what the digest says.
        """
        if blobs.has(digest):
            return 0
        final = blobs.path(digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f".{final.name}.part")
        received = 0

        def count(number: int) -> None:
            # What a cut attempt brought was paid for, too.
            nonlocal received
            received += number
            if on_bytes:
                on_bytes(number)

        for attempt in range(1, ATTEMPTS + 1):
            _preflight(final.parent, size - (part.stat().st_size if part.exists() else 0))
            try:
                self._stream(f"/v2/{name}/blobs/{digest}", digest, size, part, count)
                break
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise _unreachable(error) from error
                self._sleep(BACKOFF_S * 2 ** (attempt - 1))
        try:
            blobs.adopt(part, digest)
        finally:
            part.unlink(missing_ok=True)
        return received

    def _stream(self, url: str, digest: str, size: int, part: Path, on_bytes: OnBytes) -> None:
        have = part.stat().st_size if part.exists() else 0
        if have >= size:
            part.unlink(missing_ok=True)
            have = 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            # The digest is the entity tag: a mirror that has other bytes sends all of them.
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{digest}"'}
        with self._transport.client.stream("GET", url, headers=headers) as response:
            _check_length(response, digest, size, part)
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
                raise httpx.ReadError("the range could not be satisfied", request=response.request)
            _check(response, digest)
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            with part.open("ab" if resumed else "wb") as stream:
                total = have if resumed else 0
                # As they come and not in even pieces: a cut then loses nothing that arrived.
                for chunk in response.iter_raw():
                    total += len(chunk)
                    on_bytes(len(chunk))
                    if total > size:
                        part.unlink(missing_ok=True)
                        raise ReleaseError(
                            f"The blob {digest} is longer than its release says.",
                            why=f"{size} bytes were expected.",
                        )
                    stream.write(chunk)
        if total < size:
            raise httpx.ReadError(f"got {total} of {size} bytes", request=response.request)

    def push(
        self, layout: Layout, release: Release, on_blob: Callable[[str, int], None] | None = None
    ) -> None:
        """Push a release with its evidence: blobs first, then manifests, then the index.

        Raises:
            RemoteError: the registry cannot be reached or refuses something.
        """
        name = release.model
        for variant in release.variants:
            manifest = oci.from_json(
                layout.blobs.read(variant.digest, oci.MAX_DOCUMENT_BYTES), oci.Manifest, "manifest"
            )
            for blob in (manifest.config, *manifest.layers):
                self._push_blob(name, layout.blobs, blob.digest, on_blob)
            self._push_manifest(name, layout.blobs, variant.digest, oci.MANIFEST, variant.digest)
        self._push_manifest(name, layout.blobs, release.digest, oci.INDEX, release.digest)
        for digest in layout.evidence_digests(release.digest):
            manifest = oci.from_json(
                layout.blobs.read(digest, oci.MAX_DOCUMENT_BYTES), oci.Manifest, "evidence"
            )
            for blob in (manifest.config, *manifest.layers):
                self._push_blob(name, layout.blobs, blob.digest, on_blob)
            self._push_manifest(name, layout.blobs, digest, oci.MANIFEST, digest)

    def _push_blob(
        self, name: str, blobs: Blobs, digest: str, on_blob: Callable[[str, int], None] | None
    ) -> None:
        present = self._request("HEAD", f"/v2/{name}/blobs/{digest}")
        size = blobs.path(digest).stat().st_size
        if present.status_code == httpx.codes.NOT_FOUND:
            blobs.verify(digest)
            begun = self._request("POST", f"/v2/{name}/blobs/uploads/")
            _check(begun, digest)
            with blobs.path(digest).open("rb") as stream:
                done = self._transport.client.put(
                    begun.headers["location"],
                    params={"digest": digest},
                    content=stream,
                    headers={
                        "Content-Type": "application/octet-stream",
                        "Content-Length": str(size),
                    },
                )
            _check(done, digest)
        else:
            _check(present, digest)
        if on_blob:
            on_blob(digest, size)

    def _push_manifest(self, name: str, blobs: Blobs, digest: str, kind: str, ref: str) -> None:
        response = self._request(
            "PUT",
            f"/v2/{name}/manifests/{ref}",
            content=blobs.read(digest, oci.MAX_DOCUMENT_BYTES),
            headers={"Content-Type": kind},
        )
        _check(response, digest)

    def _request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._transport.client.request(method, url, content=content, headers=headers)
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise _unreachable(error) from error
                self._sleep(BACKOFF_S * 2 ** (attempt - 1))
        raise AssertionError


def _check(response: httpx.Response, what: str) -> None:
    if response.is_success:
        return
    status = response.status_code
    if not is_digest(what):
        what = what[:80]
    reasons = {
        401: "It wants other credentials.",
        403: "It does not allow it.",
        404: "It lacks it.",
    }
    raise RemoteError(
        f"The registry answered {status} for {what}.",
        why=reasons.get(status, "It gave no reason."),
        fix="Push the release again." if status == httpx.codes.NOT_FOUND else "",
    )


def _check_length(response: httpx.Response, digest: str, size: int, part: Path) -> None:
    """Tell a registry that has another blob from a connection that was cut.

    Raises:
        ReleaseError: what the registry has under this digest is of another length.
    """
    if response.status_code == httpx.codes.OK:
        length = response.headers.get("content-length", "")
    else:
        length = response.headers.get("content-range", "").rpartition("/")[2]
    if length.isdigit() and int(length) != size:
        part.unlink(missing_ok=True)
        raise ReleaseError(
            f"The blob {digest} is not what its release says.",
            why=f"The registry has {length} bytes of it, {size} were expected.",
            fix="It was damaged or swapped there; push the release again.",
        )


def _unreachable(error: Exception) -> RemoteError:
    return RemoteError(
        "The registry cannot be reached.",
        why=f"{type(error).__name__}: {error}.",
        fix="Check the address and the network; a download goes on where it stopped.",
    )


def _preflight(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise DeviceError(
            "The disk has no room for the download.",
            why=f"{needed} bytes are needed and {SPARE_BYTES} to spare, {free} are free.",
            fix=f"Free some space on the disk of {folder}.",
        )
