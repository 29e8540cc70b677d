"""The device's half of its HTTPS talk with the fleet; HTTPS is the truth, MQTT the fast path."""

from collections.abc import Generator

import httpx
import msgspec

from cloud_sync.address import http_client
from cloud_sync.messages import (
    Batch,
    Enrolled,
    EnrollRequest,
    Hello,
    decode,
    encode,
)
from cloud_sync.trust import PayloadType, PrivateKey, sign
from cloud_sync.trust.device_token import SCHEME, make_token
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES
from edgeml.errors import RemoteError, TrustError

_TIMEOUT = httpx.Timeout(15.0, connect=5.0)


class _Problem(msgspec.Struct):
    """What is read of a refusal (RFC 9457)."""

    detail: str


class DeviceAuth(httpx.Auth):
    """Signs the server's challenge, and again when the server says that it is too old."""

    requires_response_body = False

    def __init__(self, device: str, key: PrivateKey) -> None:
        self._device = device
        self._key = key
        self._token = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the token, or the answer to the challenge that comes back."""
        if self._token:
            request.headers["Authorization"] = self._token
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        if response.url.netloc != request.url.netloc:
            return  # a host that we were redirected to has no business with this device's key
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        challenge = rest.removeprefix('challenge="').removesuffix('"')
        if scheme == SCHEME and challenge:
            self._token = make_token(self._device, challenge, self._key)
            request.headers["Authorization"] = self._token
            yield request


class DeviceClient:
    """Hello, records and the desired state, over HTTP(S).

    Args:
        base_url: the fleet's listener for devices.
        device: this device's id.
        key: its private key, which signs all that goes up.

    Raises:
        UserError: the address is none.
    """

    def __init__(self, base_url: str, device: str, key: PrivateKey) -> None:
        self.auth = DeviceAuth(device, key)
        self._key = key
        self._client = http_client(base_url, self.auth, _TIMEOUT, of="fleet")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def hello(self, hello: Hello) -> bytes | None:
        """Say hello; returns the envelope of the desired state, or None where there is none.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or fails.
        """
        return self._post("/device/v1/hello", sign(encode(hello), PayloadType.HELLO, self._key))

    def desired(self) -> bytes | None:
        """The envelope of the desired state, or None where there is none.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or fails.
        """
        return self._answer("GET", "/device/v1/desired", None)

    def send(self, batch: Batch) -> bytes:
        """Send records; returns the envelope of the fleet's `Ack`.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or did not store them.
        """
        answer = self._post("/device/v1/records", sign(encode(batch), PayloadType.BATCH, self._key))
        if answer is None:
            raise RemoteError("The fleet did not acknowledge the records.")
        return answer

    def _post(self, path: str, body: bytes) -> bytes | None:
        return self._answer("POST", path, body)

    def _answer(self, method: str, path: str, body: bytes | None) -> bytes | None:
        status, content = _ask(self._client, method, path, body)
        return None if status == httpx.codes.NO_CONTENT else content


def enroll(base_url: str, request: EnrollRequest) -> Enrolled:
    """Trade a one-time token and a certificate request for an identity.

    Raises:
        TrustError: the token is wrong, used or expired.
        RemoteError: the fleet cannot be reached.
        UserError: the address is none.
    """
    with http_client(base_url, None, _TIMEOUT, of="fleet") as client:
        _, content = _ask(client, "POST", "/device/v1/enroll", encode(request))
    return decode(content, Enrolled)


def _ask(client: httpx.Client, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    """The status and the body of a good answer, of no more bytes than an envelope may have."""
    data = bytearray()
    try:
        with client.stream(method, path, content=body) as response:
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_ENVELOPE_BYTES:
                    raise RemoteError(
                        "The fleet's answer was refused.",
                        why=f"It is longer than {MAX_ENVELOPE_BYTES} bytes.",
                    )
    except httpx.HTTPError as error:
        raise RemoteError(
            f"The fleet at {client.base_url} cannot be reached.",
            why=f"{type(error).__name__}: {error}.",
            fix="Check that it is up; its device listener has port 8081 by default.",
        ) from error
    if not response.is_success:
        raise _refused(response.status_code, bytes(data))
    return response.status_code, bytes(data)


def _refused(status: int, body: bytes) -> TrustError | RemoteError:
    try:
        detail = msgspec.json.decode(body, type=_Problem).detail
    except (msgspec.DecodeError, ValueError, RecursionError):
        detail = body[:200].decode(errors="replace")
    what = f"The fleet answered {status}."
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return TrustError(what, why=detail)
    return RemoteError(what, why=detail)
