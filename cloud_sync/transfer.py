"""Releases to and from a registry, over the routes of the OCI distribution specification 1.1.

Every blob is known by its digest and checked against it, so a registry, a mirror or an object
store that it redirects to can withhold, never swap. Credentials go to the registry's own host
and nowhere else. What a client costs on the network its `meter` counts.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import httpx

from cloud_sync.address import http_client
from cloud_sync.deadline import in_time
from cloud_sync.download import Download, Pace, refusal, unreachable
from cloud_sync.metering import Meter
from cloud_sync.patience import ATTEMPTS, TRANSIENT, Patience
from cloud_sync.release import Blobs, Release, digest_of, oci
from cloud_sync.release.reading import read_release
from cloud_sync.trust.tls import Now
from cloud_sync.watch import Watch
from edgeml.errors import ReleaseError, RemoteError

TIMEOUT = httpx.Timeout(30.0, connect=10.0)

OnBlob = Callable[[str, int], None]

_ACCEPT = f"{oci.INDEX}, {oci.MANIFEST}, */*;q=0.5"


class Pushable(Protocol):
    """What holds a release to be pushed: a `cloud_sync.release.Layout`, or the fleet's registry."""

    blobs: Blobs

    def evidence_digests(self, release: str) -> Sequence[str]:
        """The digests of the evidence artifacts about a release."""
        ...


class OciClient:
    """Pulls and pushes releases over the OCI distribution routes of one registry.

    Args:
        base_url: the registry, `https://fleet.example:8081`.
        auth: the credentials it wants, such as `cloud_sync.registry_auth.RegistryAuth`.
        prefix: the repository below which its models are: `team-a` for `team-a/digits`.
        pace: how slow it may be, and how quick.
        attempts: how often in a row it may fail.
        sleep: waits between attempts; may raise to stop.
        now: the time by which its certificate is judged; the wall clock by default.

    Attributes:
        meter: what its connections cost.
        name: its address, as errors name it.

    Raises:
        UserError: the address is none.
    """

    def __init__(
        self,
        base_url: str,
        auth: httpx.Auth | None = None,
        *,
        prefix: str = "",
        pace: Pace = Pace(),  # noqa: B008 -- a frozen value
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
        now: Now | None = None,
    ) -> None:
        # Redirects to another host are followed without the header Authorization.
        self._client = http_client(
            base_url, auth, TIMEOUT, of="registry", follow_redirects=True, now=now
        )
        # What a compressed answer grows into is bounded by nobody.
        self._client.headers["Accept-Encoding"] = "identity"
        self.name = f"{self._client.base_url}{prefix}".rstrip("/")
        self.meter = Meter()
        self.meter.watch_http(self._client)
        self._below = f"/v2/{prefix.strip('/')}/" if prefix.strip("/") else "/v2/"
        self._pace = pace
        self._attempts = attempts
        self._sleep = sleep
        self._config = ""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self.meter.traffic()

    def document(self, name: str, digest: str, max_bytes: int = oci.MAX_DOCUMENT_BYTES) -> bytes:
        """A manifest, index or other small blob, verified.

        Raises:
            RemoteError: the registry cannot be reached or does not have it.
            ReleaseError: it is not what its digest says, or too large.
        """
        data = self._read(name, digest, max_bytes)
        if digest_of(data) != digest:
            raise ReleaseError(
                "A document is not what its digest says.",
                why=f"The registry gave {len(data)} bytes with {digest_of(data)} for {digest}.",
                fix="It was damaged or swapped there; push the release again.",
            )
        with contextlib.suppress(ReleaseError):  # it is no manifest
            self._config = oci.from_json(data, oci.Manifest, "manifest").config.digest
        return data

    def release(self, name: str, digest: str) -> Release:
        """Read a release's index, manifests and configs from the registry.

        Raises:
            RemoteError: the registry cannot be reached or lacks a part of it.
            ReleaseError: something in it is damaged or not allowed.
        """
        return read_release(lambda d, limit: self.document(name, d, limit), digest)

    def has_blob(self, name: str, digest: str) -> bool:
        """Whether the registry has a blob.

        Raises:
            RemoteError: it cannot be reached or refuses to say.
        """
        answer = self._request("HEAD", f"{self._below}{name}/blobs/{digest}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        _check(answer, digest)
        return True

    def fetch_blob(
        self, name: str, digest: str, size: int, blobs: Blobs, watch: Watch | None = None
    ) -> int:
        """Fetch a blob into a store, unless it is there; returns the bytes that were received.

        Raises:
            DeviceError: the disk has no room for it.
            RemoteError: the registry cannot be reached, lacks it, or keeps cutting.
            ReleaseError: what came is not what the digest says.
        """
        if blobs.has(digest):
            return 0
        return Download(
            self._client,
            f"{self._below}{name}/blobs/{digest}",
            digest,
            size,
            blobs,
            watch=watch,
            meter=self.meter,
            pace=self._pace,
            attempts=self._attempts,
            sleep=self._sleep,
        ).run()

    def push(
        self,
        layout: Pushable,
        release: Release,
        on_blob: OnBlob | None = None,
        *,
        tagged: bool = False,
    ) -> None:
        """Push a release with its evidence: blobs first, then manifests, then the index.

        With `tagged` it can be pulled by name, too, by clients that know nothing of edgeml: the
        index as `model:version`, each variant, a ModelPack, as `model:version-target`.

        Raises:
            RemoteError: the registry cannot be reached or refuses something.
            ReleaseError: a blob of the layout is missing or damaged.
        """
        name = release.model
        for variant in release.variants:
            self._push_artifact(name, layout.blobs, variant.digest, on_blob)
        self._push_manifest(name, layout.blobs, release.digest, oci.INDEX)
        for digest in layout.evidence_digests(release.digest):
            self._push_artifact(name, layout.blobs, digest, on_blob)
        if tagged:
            for variant in release.variants:
                tag = oci.tag_of(f"{release.version}-{variant.target}")
                self._push_manifest(name, layout.blobs, variant.digest, oci.MANIFEST, tag)
            tag = oci.tag_of(release.version)
            self._push_manifest(name, layout.blobs, release.digest, oci.INDEX, tag)

    def _push_artifact(self, name: str, blobs: Blobs, digest: str, on_blob: OnBlob | None) -> None:
        manifest = oci.from_json(
            blobs.read(digest, oci.MAX_DOCUMENT_BYTES), oci.Manifest, "manifest"
        )
        for blob in (manifest.config, *manifest.layers):
            if not self.has_blob(name, blob.digest):
                blobs.verify(blob.digest)
                self._upload(name, blobs, blob.digest)
            if on_blob:
                on_blob(blob.digest, blob.size)
        self._push_manifest(name, blobs, digest, oci.MANIFEST)

    def _push_manifest(
        self, name: str, blobs: Blobs, digest: str, kind: str, tag: str = ""
    ) -> None:
        answer = self._request(
            "PUT",
            f"{self._below}{name}/manifests/{tag or digest}",
            content=blobs.read(digest, oci.MAX_DOCUMENT_BYTES),
            headers={"Content-Type": kind},
        )
        _check(answer, digest)

    def _upload(self, name: str, blobs: Blobs, digest: str) -> None:
        path = blobs.path(digest)
        size = path.stat().st_size

        def attempt() -> httpx.Response:
            begun = self._client.post(f"{self._below}{name}/blobs/uploads/")
            if not begun.is_success:
                return begun
            # The place may be of another host and carry a query of its own; both are kept.
            place = begun.url.join(begun.headers.get("location", ""))
            own = (place.scheme, place.netloc) == (begun.url.scheme, begun.url.netloc)
            with path.open("rb") as stream:
                return self._client.put(
                    place.copy_set_param("digest", digest),
                    content=stream,
                    headers={
                        "Content-Type": "application/octet-stream",
                        "Content-Length": str(size),
                    },
                    auth=httpx.USE_CLIENT_DEFAULT if own else httpx.Auth(),
                )

        _check(self._patiently(attempt), digest)

    def _read(self, name: str, digest: str, max_bytes: int) -> bytes:
        """A small body, never more than may be read: a manifest's or a blob's.

        What the last manifest named as its config is a blob; else a manifest is asked for first.
        """
        data = bytearray()
        kinds = ("blobs", "manifests") if digest == self._config else ("manifests", "blobs")

        def get(url: str) -> httpx.Response:
            data.clear()
            request = self._client.build_request("GET", url, headers={"Accept": _ACCEPT})
            with in_time(self.meter, self._pace.answer_s, request):
                answer = self._client.send(request, stream=True)
                try:
                    for chunk in answer.iter_raw():
                        data.extend(chunk)
                        if len(data) > max_bytes:
                            raise ReleaseError(
                                f"{digest} is too large.",
                                why=f"At most {max_bytes} bytes are read.",
                            )
                finally:
                    answer.close()
            return answer

        def attempt() -> httpx.Response:
            answer = get(f"{self._below}{name}/{kinds[0]}/{digest}")
            # Docker's registry answers 500 where a blob that is no manifest is asked for as one.
            if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.INTERNAL_SERVER_ERROR}:
                other = get(f"{self._below}{name}/{kinds[1]}/{digest}")
                if other.is_success or answer.status_code == httpx.codes.NOT_FOUND:
                    return other
            return answer

        _check(self._patiently(attempt), digest)
        return bytes(data)

    def _request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        return self._patiently(
            lambda: self._client.request(method, url, content=content, headers=headers)
        )

    def _patiently(self, attempt: Callable[[], httpx.Response]) -> httpx.Response:
        patience = Patience(self._attempts)
        while True:
            answer: httpx.Response | None = None
            failure: RemoteError | None = None
            try:
                answer = attempt()
                if answer.status_code not in TRANSIENT:
                    return answer
            except httpx.TransportError as error:
                failure = unreachable(error)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise unreachable(error) from error
            pause = patience.failed(answer)
            if pause is None:
                if answer is not None:
                    return answer
                assert failure is not None
                raise failure
            self._sleep(pause)


def _check(answer: httpx.Response, what: str) -> None:
    if not answer.is_success:
        raise refusal(answer, what)
