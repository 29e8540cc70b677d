"""One blob over HTTP into a store: resumed, hashed as it comes, bounded, never half in place.

The bytes go to a `.part` file beside the blobs, which goes on where it stopped (Range with
If-Range), after a cut as after a restart, at this registry or another one: it is known by the
digest alone. What has another length or digest is thrown away and refused. One download of a
blob at a time.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec

from cloud_sync.deadline import in_time
from cloud_sync.metering import Meter
from cloud_sync.patience import ATTEMPTS, TRANSIENT, Patience
from cloud_sync.release import Blobs
from cloud_sync.watch import Watch
from edgeml.errors import DeviceError, ReleaseError, RemoteError

SPARE_BYTES = 4 << 20
_CHUNK = 1 << 20
_GIVEN_BACK = 256 << 10


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How slow a registry may be, and how quick: what is slower is cut and counts as a failure.

    Attributes:
        answer_s: how long the first byte of a body may take, or all of a small one.
        window_s: in such a time at least `least_bytes` of a blob must come; an attempt that
            brings less does not count as progress, so that no download goes on for ever.
        least_bytes: see there.
        most_bytes_s: the rate that is not exceeded, in bytes a second; 0 for none.
    """

    answer_s: float = 60.0
    window_s: float = 60.0
    least_bytes: int = 16 << 10
    most_bytes_s: int = 0


class Download:
    """A blob on its way; `run` brings it.

    Args:
        client: whom to ask, with the credentials it needs.
        url: where the blob is.
        digest: what it must be.
        size: its bytes, as the release says.
        blobs: where it goes.
        watch: looks on.
        meter: of the client's connections.
        pace: how slow or quick it may be.
        attempts: how many in a row may bring nothing.
        sleep: waits between attempts; may raise to stop.
    """

    def __init__(
        self,
        client: httpx.Client,
        url: str,
        digest: str,
        size: int,
        blobs: Blobs,
        *,
        watch: Watch | None = None,
        meter: Meter,
        pace: Pace = Pace(),  # noqa: B008 -- a frozen value
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._url = url
        self._digest = digest
        self._size = size
        self._blobs = blobs
        self._watch = watch or Watch()
        self._meter = meter
        self._pace = pace
        self._attempts = attempts
        self._sleep = sleep
        self._part = _Part(blobs.part(digest))
        self._received = 0

    def run(self) -> int:
        """Bring the blob, and return the bytes that were received for it, cut attempts and all.

        Raises:
            DeviceError: the disk has no room for it.
            RemoteError: the registry cannot be reached, lacks it, keeps cutting or is too slow.
            ReleaseError: what came is not what the digest says.
        """
        try:
            self._part.load()
            begun_before = self._part.size
            self._bring()
            if self._part.digest != self._digest and begun_before:
                # What was here may be what was spoilt: by a power loss, or another registry.
                self._part.discard()
                self._bring()
            if self._part.digest != self._digest:
                raise self._other("other")
            self._blobs.adopt_known(self._part.path, self._digest)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                self._part.give_back(_GIVEN_BACK)
            raise DeviceError(
                f"The blob {self._digest} cannot be stored.",
                why=f"{error.strerror or error}.",
                fix=f"Check the disk of {self._part.path.parent}.",
            ) from error
        finally:
            self._watch.ended()
        return self._received

    def _bring(self) -> None:
        patience = Patience(self._attempts)
        most = self._part.size
        number = 0
        while self._part.size != self._size:
            if self._part.size > self._size:
                self._part.discard()
            missing, number = self._size - self._part.size, number + 1
            _preflight(self._part.path.parent, missing)
            self._watch.attempt(number, missing)
            answer: httpx.Response | None = None
            try:
                answer = self._stream()
                if answer is None:
                    return
                failure = refusal(answer, self._digest)
            except httpx.TransportError as error:
                failure = unreachable(error)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise unreachable(error) from error
            if self._part.size >= most + self._pace.least_bytes:
                most = self._part.size
                patience.progressed()
            pause = patience.failed(answer)
            if pause is None:
                raise failure
            self._sleep(pause)
        if not self._size:
            self._part.touch()

    def _stream(self) -> httpx.Response | None:
        """One attempt: None when all has come, the answer where asking again may help.

        Raises:
            httpx.TransportError: the connection was cut, or is too slow.
            ReleaseError: the registry has something else.
            RemoteError: it refuses.
        """
        have = self._part.size
        headers = {"Accept-Encoding": "identity"}
        if have:
            # The digest is the entity tag: a mirror that has other bytes sends all of them.
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{self._digest}"'}
        request = self._client.build_request("GET", self._url, headers=headers)
        with in_time(self._meter, self._pace.answer_s, request):
            response = self._client.send(request, stream=True)
        try:
            return self._take(response, have)
        finally:
            response.close()

    def _take(self, response: httpx.Response, have: int) -> httpx.Response | None:
        self._check_length(response)
        status = response.status_code
        resumed = status == httpx.codes.PARTIAL_CONTENT
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE or (
            resumed and not response.headers.get("content-range", "").startswith(f"bytes {have}-")
        ):
            self._part.discard()
            return response
        if status in TRANSIENT:
            return response
        if not response.is_success:
            raise refusal(response, self._digest)
        if not resumed:
            self._part.discard()
        flow = _Flow(self._pace, self._sleep)
        with self._part.appending() as append:
            # As they come and not in even pieces: a cut then loses nothing that arrived.
            for chunk in response.iter_raw():
                self._received += len(chunk)
                if self._part.size + len(chunk) > self._size:
                    raise self._other(f"more than {self._size}")
                append(chunk)
                self._watch.arrived(len(chunk))
                flow.passed(len(chunk), response.request)
        if self._part.size < self._size:
            got = f"got {self._part.size} of {self._size} bytes"
            raise httpx.ReadError(got, request=response.request)
        return None

    def _check_length(self, response: httpx.Response) -> None:
        """Tell a registry that has another blob from a connection that was cut."""
        if response.status_code == httpx.codes.OK:
            length = response.headers.get("content-length", "")
        else:
            length = response.headers.get("content-range", "").rpartition("/")[2]
        if length.isascii() and length.isdigit() and int(length[:20]) != self._size:
            raise self._other(length[:20])

    def _other(self, length: str) -> ReleaseError:
        self._part.discard()
        return ReleaseError(
            f"The blob {self._digest} is not what its release says.",
            why=f"The registry has {length} bytes of it, {self._size} were expected.",
            fix="It was damaged or swapped there; push the release again.",
        )


class _Part:
    """What has come of a blob, with the hash of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def load(self) -> None:
        """Take up what an earlier process left."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            with self.path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    self._hash.update(chunk)
                    self.size += len(chunk)

    def touch(self) -> None:
        self.path.touch()

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.size, self._hash = 0, hashlib.sha256()

    def give_back(self, count: int) -> None:
        """Leave a full disk some bytes, so that whoever fills it can still say so."""
        with suppress(OSError):
            os.truncate(self.path, max(0, self.path.stat().st_size - count))

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        with self.path.open("ab") as stream:

            def append(chunk: bytes) -> None:
                stream.write(chunk)
                self._hash.update(chunk)
                self.size += len(chunk)

            yield append


class _Flow:
    """The bytes of one attempt over time: neither too slow nor too quick."""

    def __init__(self, pace: Pace, sleep: Callable[[float], None]) -> None:
        self._pace = pace
        self._sleep = sleep
        self._began = self._window = time.monotonic()
        self._total = self._within = 0

    def passed(self, count: int, request: httpx.Request) -> None:
        now = time.monotonic()
        self._total += count
        self._within += count
        if self._within >= self._pace.least_bytes:
            self._window, self._within = now, 0
        elif now - self._window > self._pace.window_s:
            raise httpx.ReadTimeout(
                f"{self._within} bytes came in {self._pace.window_s:g} s", request=request
            )
        if self._pace.most_bytes_s:
            early = self._began + self._total / self._pace.most_bytes_s - now
            if early > 0:
                self._sleep(early)
                self._window += early


def refusal(response: httpx.Response, what: str) -> RemoteError:
    """The error of an answer that is not a success."""
    status = response.status_code
    reasons = {
        401: "It wants other credentials.",
        403: "It does not allow it.",
        404: "It lacks it.",
        410: "It had it and has removed it.",
        416: "It serves no part of it, nor the whole.",
        429: "It is asked too often.",
    }
    fixes = {401: "Check name and password of this registry."}
    fixes |= dict.fromkeys((404, 410), "Push the release again.")
    fallback = "Something failed there." if status in TRANSIENT else "It gave no reason."
    return RemoteError(
        f"The registry {response.url.host} answered {status} for {what[:80]}.",
        why=reasons.get(status, fallback),
        fix=fixes.get(status, ""),
    )


def unreachable(error: Exception) -> RemoteError:
    """The error of a connection that failed."""
    slow = isinstance(error, httpx.ReadTimeout)
    return RemoteError(
        "The registry is too slow." if slow else "The registry cannot be reached.",
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
