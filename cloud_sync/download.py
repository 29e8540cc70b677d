"""One blob over HTTP into a store: resumed, bounded, never half in place.

The bytes go to a `.part` file beside the blobs, which goes on where it stopped (Range with
If-Range), after a cut as after a restart. What has another length or digest is thrown away and
refused. One download of a blob at a time.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx

from cloud_sync.patience import TRANSIENT, Patience
from cloud_sync.release import Blobs
from edgeml.errors import DeviceError, ReleaseError, RemoteError

SPARE_BYTES = 4 << 20

OnBytes = Callable[[int], None]


class Download:
    """A blob on its way; `run` brings it.

    Args:
        client: whom to ask, with the credentials it needs.
        url: where the blob is.
        digest: what it must be.
        size: its bytes, as the release says.
        blobs: where it goes.
        on_bytes: called with the length of every piece that arrives; may raise to stop.
        sleep: waits between attempts.
    """

    def __init__(
        self,
        client: httpx.Client,
        url: str,
        digest: str,
        size: int,
        blobs: Blobs,
        *,
        on_bytes: OnBytes | None,
        sleep: Callable[[float], None],
    ) -> None:
        self._client = client
        self._url = url
        self._digest = digest
        self._size = size
        self._blobs = blobs
        self._on_bytes = on_bytes
        self._sleep = sleep
        final = blobs.path(digest)
        self._part = final.with_name(f".{final.name}.part")
        self._received = 0

    def run(self) -> int:
        """Bring the blob, and return the bytes that were received for it, cut attempts and all.

        Raises:
            DeviceError: the disk has no room for it.
            RemoteError: the registry cannot be reached, lacks it, or keeps cutting.
            ReleaseError: what came is not what the digest says.
        """
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._bring()
            try:
                self._blobs.adopt(self._part, self._digest)
            finally:
                self._discard()
        except OSError as error:
            raise DeviceError(
                f"The blob {self._digest} cannot be stored.",
                why=f"{error.strerror or error}.",
                fix=f"Check the disk of {self._part.parent}.",
            ) from error
        return self._received

    def _bring(self) -> None:
        patience = Patience()
        most = self._have()
        while True:
            have = self._have()
            if have > self._size:
                self._discard()
                have = 0
            if have == self._size and self._part.exists():
                return  # it came before a restart, and only the check of its digest is due
            _preflight(self._part.parent, self._size - have)
            answer: httpx.Response | None = None
            try:
                answer = self._stream(have)
                if answer is None:
                    return
                failure = refusal(answer, self._digest)
            except httpx.TransportError as error:
                failure = unreachable(error)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise unreachable(error) from error
            if self._have() > most:
                most = self._have()
                patience.progressed()
            pause = patience.failed(answer)
            if pause is None:
                raise failure
            self._sleep(pause)

    def _stream(self, have: int) -> httpx.Response | None:
        """One attempt: None when all has come, the answer where asking again may help.

        Raises:
            httpx.TransportError: the connection was cut.
            ReleaseError: the registry has something else.
            RemoteError: it refuses.
        """
        headers = {"Accept-Encoding": "identity"}
        if have:
            # The digest is the entity tag: a mirror that has other bytes sends all of them.
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{self._digest}"'}
        with self._client.stream("GET", self._url, headers=headers) as response:
            self._check_length(response)
            status = response.status_code
            resumed = status == httpx.codes.PARTIAL_CONTENT
            if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE or (
                resumed
                and not response.headers.get("content-range", "").startswith(f"bytes {have}-")
            ):
                self._discard()
                return response
            if status in TRANSIENT:
                return response
            if not response.is_success:
                raise refusal(response, self._digest)
            total = have if resumed else 0
            with self._part.open("ab" if resumed else "wb") as stream:
                # As they come and not in even pieces: a cut then loses nothing that arrived.
                for chunk in response.iter_raw():
                    total += len(chunk)
                    self._received += len(chunk)
                    if total > self._size:
                        raise self._other(f"more than {self._size}")
                    stream.write(chunk)
                    if self._on_bytes:
                        self._on_bytes(len(chunk))
        if total < self._size:
            raise httpx.ReadError(f"got {total} of {self._size} bytes", request=response.request)
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
        self._discard()
        return ReleaseError(
            f"The blob {self._digest} is not what its release says.",
            why=f"The registry has {length} bytes of it, {self._size} were expected.",
            fix="It was damaged or swapped there; push the release again.",
        )

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)


def refusal(response: httpx.Response, what: str) -> RemoteError:
    """The error of an answer that is not a success."""
    status = response.status_code
    reasons = {
        401: "It wants other credentials.",
        403: "It does not allow it.",
        404: "It lacks it.",
        429: "It is asked too often.",
    }
    fallback = "Something failed there." if status in TRANSIENT else "It gave no reason."
    return RemoteError(
        f"The registry answered {status} for {what[:80]}.",
        why=reasons.get(status, fallback),
        fix="Push the release again." if status == httpx.codes.NOT_FOUND else "",
    )


def unreachable(error: Exception) -> RemoteError:
    """The error of a connection that failed."""
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
