"""A device's HTTPS talk with the fleet, for many devices on one event loop.

The routes, tokens and bounds are those of `cloud_sync.device_api` and `cloud_sync.transfer`. Each
errand of a device (a hello, an update) has a connection of its own, as real devices have, so that
TCP and TLS cost here what they cost in the field; how many errands there are at a time is bounded.
"""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from cloud_sync.device_api import COMMANDS_HEADER
from cloud_sync.messages import Batch, Enrolled, EnrollRequest, Hello, decode, encode
from cloud_sync.release import digest_of
from cloud_sync.trust import PayloadType, PrivateKey, sign
from cloud_sync.trust.device_token import SCHEME, make_token
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES
from cloud_sync.trust.messages import TimeRequest
from edgeml.errors import ReleaseError, RemoteError, TrustError

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30.0, sock_read=60.0)
_CHUNK = 1 << 18
_OK, _NO_CONTENT, _FIRST_ERROR, _UNAUTHORIZED, _FORBIDDEN = 200, 204, 400, 401, 403
_AS_IT_IS = {"Accept-Encoding": "identity", "Accept": "*/*"}


class _Problem(msgspec.Struct):
    """What is read of a refusal (RFC 9457)."""

    detail: str = ""


class Counted(msgspec.Struct):
    """What all errands together have cost."""

    requests: int = 0
    downloaded_bytes: int = 0
    connections: int = 0


class Web:
    """Makes errands; one for the whole simulator.

    Args:
        base_url: the fleet's listener for devices.
        tls: how its certificate is judged; None for http://.
        at_once: how many errands may be under way.
    """

    def __init__(self, base_url: str, tls: ssl.SSLContext | None, at_once: int) -> None:
        self.base_url = base_url.rstrip("/")
        self.counted = Counted()
        self.tokens: dict[str, str] = {}  # a device signs anew when its challenge is too old
        self._tls = tls
        self._room = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def errand(self, device: str, key: PrivateKey) -> AsyncIterator["Errand"]:
        """A connection of a device's own, when there is room for it."""
        async with self._room:
            connector = aiohttp.TCPConnector(ssl=self._tls or False, limit=1)
            async with aiohttp.ClientSession(
                connector=connector, timeout=_TIMEOUT, auto_decompress=False
            ) as session:
                self.counted.connections += 1
                yield Errand(self, session, device, key)

    async def enroll(self, request: EnrollRequest, device: str, key: PrivateKey) -> Enrolled:
        """Trade a one-time token and a certificate request for an identity.

        Raises:
            TrustError: the token is wrong, used or expired.
            RemoteError: the fleet cannot be reached.
        """
        async with self.errand(device, key) as errand:
            return decode(await errand.post("/device/v1/enroll", encode(request)), Enrolled)


class Errand:
    """What a device asks of the fleet on one connection.

    Attributes:
        commands_wait: whether the last hello's answer said that there are commands.
    """

    __slots__ = ("_device", "_key", "_session", "_web", "commands_wait")

    def __init__(
        self, web: Web, session: aiohttp.ClientSession, device: str, key: PrivateKey
    ) -> None:
        self._web = web
        self._session = session
        self._device = device
        self._key = key
        self.commands_wait = False

    async def hello(self, hello: Hello) -> bytes | None:
        """Say hello; the envelope of the desired state, or None where there is none."""
        body = sign(encode(hello), PayloadType.HELLO, self._key)
        return await self.post("/device/v1/hello", body) or None

    async def time(self, nonce: str) -> bytes:
        """Ask for the time; the envelope of the fleet's `SignedTime`."""
        body = encode(TimeRequest(device=self._device, nonce=nonce))
        return await self.post("/device/v1/time", body)

    async def send(self, batch: Batch) -> bytes:
        """Send records; the envelope of the fleet's `Ack`."""
        body = sign(encode(batch), PayloadType.BATCH, self._key)
        return await self.post("/device/v1/records", body)

    async def commands(self) -> list[bytes]:
        """The envelopes of the commands that wait for this device."""
        data = await self._small("GET", "/device/v1/commands", None)
        return [bytes(envelope) for envelope in msgspec.json.decode(data, type=list[msgspec.Raw])]

    async def trust(self, url: str) -> tuple[int, bytes]:
        """A file of TUF's by its address: the status, and the file where there is one."""
        path = url.removeprefix(self._web.base_url)
        async with self._request("GET", path, None, {}, refuse=False) as answer:
            return answer.status, await answer.read()

    async def document(
        self, model: str, digest: str, max_bytes: int, *, blob: bool = False
    ) -> bytes:
        """A manifest, or a small blob, verified; what it is not known to be is asked for second.

        Raises:
            ReleaseError: it is not what its digest says.
        """
        first, second = ("blobs", "manifests") if blob else ("manifests", "blobs")
        path = f"/v2/{model}/{first}/{digest}"
        async with self._request("GET", path, None, _AS_IT_IS, refuse=False) as answer:
            data = await _all(answer, max_bytes)
            good = answer.status == _OK
        if not good:
            path = f"/v2/{model}/{second}/{digest}"
            async with self._request("GET", path, None, _AS_IT_IS) as answer:
                data = await _all(answer, max_bytes)
        if digest_of(data) != digest:
            raise ReleaseError("A document is not what its digest says.", why=f"Wanted {digest}.")
        return data

    async def blob(self, model: str, digest: str, size: int) -> None:
        """Download a blob, verify it and let it go.

        Raises:
            ReleaseError: it is not what its digest says.
        """
        hashed, seen = hashlib.sha256(), 0
        async with self._request("GET", f"/v2/{model}/blobs/{digest}", None, _AS_IT_IS) as answer:
            async for chunk in answer.content.iter_chunked(_CHUNK):
                hashed.update(chunk)
                seen += len(chunk)
                self._web.counted.downloaded_bytes += len(chunk)
                if seen > size:
                    break
        if seen != size or f"sha256:{hashed.hexdigest()}" != digest:
            raise ReleaseError("A blob is not what its digest says.", why=f"Wanted {digest}.")

    async def post(self, path: str, body: bytes) -> bytes:
        """Post a message; the answer, empty where there is none."""
        return await self._small("POST", path, body)

    async def _small(self, method: str, path: str, body: bytes | None) -> bytes:
        async with self._request(method, path, body, {}) as answer:
            if COMMANDS_HEADER in answer.headers:
                self.commands_wait = answer.headers[COMMANDS_HEADER] != "0"
            data = await _all(answer, MAX_ENVELOPE_BYTES)
            return b"" if answer.status == _NO_CONTENT else data

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        *,
        refuse: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer, or any where none is refused; the fleet's challenge is answered once.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached, or refuses.
        """
        url = self._web.base_url + path
        try:
            for attempt in (0, 1):
                self._web.counted.requests += 1
                token = self._web.tokens.get(self._device)
                sent = headers | ({"Authorization": token} if token else {})
                async with self._session.request(method, url, data=body, headers=sent) as answer:
                    if answer.status == _UNAUTHORIZED and not attempt and self._challenged(answer):
                        await answer.read()
                        continue
                    if refuse and answer.status >= _FIRST_ERROR:
                        raise _refused(answer.status, await answer.content.read(1 << 16))
                    yield answer
                    return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RemoteError(
                f"The fleet at {self._web.base_url} cannot be reached.",
                why=f"{type(error).__name__}: {error}.",
                fix="Check that it is up; its device listener has port 8081 by default.",
            ) from error

    def _challenged(self, answer: aiohttp.ClientResponse) -> bool:
        scheme, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        challenge = rest.removeprefix('challenge="').removesuffix('"')
        if scheme != SCHEME or not challenge:
            return False
        self._web.tokens[self._device] = make_token(self._device, challenge, self._key)
        return True


async def _all(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """A body, bounded.

    Raises:
        RemoteError: it is too long.
    """
    data = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        data += chunk
        if len(data) > max_bytes:
            raise RemoteError("The fleet's answer was refused.", why="It is too long.")
    return bytes(data)


def _refused(status: int, body: bytes) -> TrustError | RemoteError:
    try:
        detail = msgspec.json.decode(body, type=_Problem).detail
    except (msgspec.DecodeError, ValueError):
        detail = body[:200].decode(errors="replace")
    kind = TrustError if status in {_UNAUTHORIZED, _FORBIDDEN} else RemoteError
    return kind(f"The fleet answered {status}.", why=detail)
