"""The device's half of its HTTPS talk with the fleet; HTTPS is the truth, MQTT the fast path."""

from collections.abc import Generator

import httpx

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
from edgeml.errors import RemoteError, TrustError, UserError

_TIMEOUT = httpx.Timeout(15.0, connect=5.0)


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
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        challenge = rest.removeprefix('challenge="').removesuffix('"')
        if scheme == SCHEME and challenge:
            self._token = make_token(self._device, challenge, self._key)
            request.headers["Authorization"] = self._token
            yield request


class DeviceClient:
    """Hello, records and the desired state, over HTTP(S)."""

    def __init__(self, base_url: str, device: str, key: PrivateKey) -> None:
        self.auth = DeviceAuth(device, key)
        self._key = key
        self._client = httpx.Client(base_url=base_url, auth=self.auth, timeout=_TIMEOUT)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def hello(self, hello: Hello) -> bytes | None:
        """Say hello; returns the envelope of the desired state, or None where there is none."""
        return self._post("/device/v1/hello", sign(encode(hello), PayloadType.HELLO, self._key))

    def desired(self) -> bytes | None:
        """The envelope of the desired state, or None where there is none."""
        return self._answer("GET", "/device/v1/desired", None)

    def send(self, batch: Batch) -> bytes:
        """Send records; returns the envelope of the fleet's `Ack`."""
        answer = self._post("/device/v1/records", sign(encode(batch), PayloadType.BATCH, self._key))
        if answer is None:
            raise RemoteError("The fleet did not acknowledge the records.")
        return answer

    def _post(self, path: str, body: bytes) -> bytes | None:
        return self._answer("POST", path, body)

    def _answer(self, method: str, path: str, body: bytes | None) -> bytes | None:
        try:
            response = self._client.request(method, path, content=body)
        except httpx.HTTPError as error:
            raise RemoteError(
                "The fleet cannot be reached.", why=f"{type(error).__name__}: {error}."
            ) from error
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        if not response.is_success:
            raise _refused(response)
        return response.content


def enroll(base_url: str, request: EnrollRequest) -> Enrolled:
    """Trade a one-time token and a certificate request for an identity.

    Raises:
        TrustError: the token is wrong, used or expired.
        RemoteError: the fleet cannot be reached.
    """
    try:
        response = httpx.post(
            f"{base_url.rstrip('/')}/device/v1/enroll", content=encode(request), timeout=_TIMEOUT
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RemoteError(
            f"The fleet at {base_url} cannot be reached.",
            why=f"{type(error).__name__}: {error}.",
            fix="Check --fleet: it is the fleet's device listener (default port 8081).",
        ) from error
    if not response.is_success:
        raise _refused(response)
    return decode(response.content, Enrolled)


def _refused(response: httpx.Response) -> TrustError | RemoteError | UserError:
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    what = f"The fleet answered {response.status_code}."
    if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return TrustError(what, why=detail)
    return RemoteError(what, why=detail)
