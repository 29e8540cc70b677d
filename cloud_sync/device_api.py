"""The device's half of its HTTPS talk with the fleet; HTTPS is the truth, MQTT the fast path."""

from collections.abc import Generator
from typing import Annotated
from urllib.parse import quote

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
from cloud_sync.metering import Meter
from cloud_sync.samples import SampleHeld, SampleOffer
from cloud_sync.trust import PayloadType, PrivateKey, sign
from cloud_sync.trust.device_token import SCHEME, make_token
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES
from cloud_sync.trust.messages import RenewRequest, TimeRequest
from cloud_sync.trust.tls import Now
from edgeml.errors import RemoteError, TrustError

COMMANDS_HEADER = "edgeml-commands"
KEYS_HEADER = "edgeml-keys"
MAX_COMMANDS = 100
_TIMEOUT = httpx.Timeout(15.0, connect=5.0)


class _Problem(msgspec.Struct):
    """What is read of a refusal (RFC 9457)."""

    detail: str


class Unfit(RemoteError):  # noqa: N818 -- what was sent is at fault, and would be again
    """The fleet will never take what was sent."""


class DeviceAuth(httpx.Auth):
    """Signs the server's challenge, and again when the server says that it is too old."""

    requires_response_body = False

    def __init__(self, device: str, key: PrivateKey) -> None:
        self._device = device
        self._key = key
        self._token = ""

    def rekey(self, key: PrivateKey) -> None:
        """Speak with another key from now on."""
        self._key, self._token = key, ""

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
        now: the time by which the server's certificate is judged; the wall clock by default.
        meter: counts what the connections cost.

    Attributes:
        device: this device's id.
        key: the key, which `rekey` replaces.
        commands_wait: whether the last hello's answer said that there are commands.
        keys: what it said of the fleet's own keys, `cloud_sync.trust.keys.fingerprint` of them: a
            hint that there may be others now, and no proof.

    Raises:
        UserError: the address is none.
    """

    def __init__(
        self,
        base_url: str,
        device: str,
        key: PrivateKey,
        now: Now | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.auth = DeviceAuth(device, key)
        self.key = key
        self.device = device
        self._base_url = base_url
        self._now = now
        self._client = http_client(base_url, self.auth, _TIMEOUT, of="fleet", now=now)
        self._meter = meter or Meter()
        self._meter.watch_http(self._client)
        self.commands_wait = False
        self.keys = ""
        self._twins: list[DeviceClient] = []

    def twin(self, meter: Meter) -> "DeviceClient":
        """Another client of the same fleet, for another thread; it is told of new keys, too."""
        made = DeviceClient(self._base_url, self.device, self.key, self._now, meter)
        self._twins.append(made)
        return made

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._meter.traffic()  # lets go of those that it counted

    def rekey(self, key: PrivateKey) -> None:
        """Speak with another key from now on."""
        self.key = key
        self.auth.rekey(key)
        for twin in self._twins:
            twin.rekey(key)

    def time(self, nonce: str) -> bytes:
        """Ask for the time; returns the envelope of the fleet's `SignedTime`.

        The server's certificate is verified but for its dates: whoever asks knows no time, and
        trusts the answer for the director's signature over the nonce.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or fails.
        """
        body = encode(TimeRequest(device=self.device, nonce=nonce))
        undated = http_client(self._base_url, self.auth, _TIMEOUT, of="fleet", now=lambda: None)
        self._meter.watch_http(undated)
        with undated as client:
            answer = _ask(client, "POST", "/device/v1/time", body)[1]
        self._meter.traffic()
        return answer

    def renew(self, csr: str) -> Enrolled:
        """Trade a certificate signing request (PEM) for a new certificate.

        Raises:
            TrustError: the fleet does not know this device with this key, or renews no more.
            RemoteError: the fleet cannot be reached or fails.
        """
        request = encode(RenewRequest(device=self.device, csr=csr))
        body = sign(request, PayloadType.RENEWAL, self.key)
        return decode(_ask(self._client, "POST", "/device/v1/renew", body)[1], Enrolled)

    def root(self, director: str) -> bytes | None:
        """The TUF root as a director's key, by its id, once stated it; None if it never did.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or fails.
        """
        return self._answer("GET", f"/device/v1/root/{director}", None)

    def hello(self, hello: Hello) -> bytes | None:
        """Say hello; returns the envelope of the desired state, or None where there is none.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or fails.
        """
        return self._post("/device/v1/hello", sign(encode(hello), PayloadType.HELLO, self.key))

    def desired(self) -> bytes | None:
        """The envelope of the desired state, or None where there is none.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or fails.
        """
        return self._answer("GET", "/device/v1/desired", None)

    def deltas(self, digest: str) -> bytes | None:
        """Which deltas lead to a blob: the JSON of `cloud_sync.delta.DeltaOffers`.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or fails.
        """
        return self._answer("GET", f"/device/v1/deltas/{digest}", None)

    def commands(self) -> list[bytes]:
        """The envelopes of the commands that wait for this device.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached, or its answer is no list.
        """
        try:
            found = msgspec.json.decode(
                self._answer("GET", "/device/v1/commands", None) or b"[]",
                type=Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_COMMANDS)],
            )
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise RemoteError("The fleet's commands could not be read.", why=f"{error}.") from None
        return [bytes(envelope) for envelope in found]

    def send(self, batch: Batch) -> bytes:
        """Send records; returns the envelope of the fleet's `Ack`.

        Raises:
            TrustError: the fleet does not know this device, or not with this key.
            RemoteError: the fleet cannot be reached or did not store them.
        """
        answer = self._post("/device/v1/records", sign(encode(batch), PayloadType.BATCH, self.key))
        if answer is None:
            raise RemoteError("The fleet did not acknowledge the records.")
        return answer

    def offer_sample(self, offer: SampleOffer) -> SampleHeld:
        """Offer a captured frame; returns what the fleet has of it.

        Raises:
            TrustError: the fleet does not know this device, or wants no frames of this model.
            Unfit: it never takes this frame.
            RemoteError: the fleet cannot be reached or has no room.
        """
        body = sign(encode(offer), PayloadType.SAMPLE, self.key)
        return decode(_ask(self._client, "POST", "/device/v1/samples", body)[1], SampleHeld)

    def send_sample(self, offer: SampleOffer, offset: int, piece: bytes) -> SampleHeld:
        """Send a piece of a frame that was offered; returns what the fleet has then.

        Raises:
            TrustError: the fleet does not know this device, or wants no frames of this model.
            RemoteError: the fleet cannot be reached, has no room, or got other bytes.
        """
        path = f"/device/v1/samples/{quote(offer.model, safe='')}/{offer.digest}?offset={offset}"
        return decode(_ask(self._client, "PUT", path, piece)[1], SampleHeld)

    def _post(self, path: str, body: bytes) -> bytes | None:
        return self._answer("POST", path, body)

    def _answer(self, method: str, path: str, body: bytes | None) -> bytes | None:
        status, content, headers = _ask(self._client, method, path, body)
        if COMMANDS_HEADER in headers:
            self.commands_wait = headers[COMMANDS_HEADER] != "0"
        self.keys = headers.get(KEYS_HEADER, self.keys)
        return None if status == httpx.codes.NO_CONTENT else content


def enroll(base_url: str, request: EnrollRequest, now: Now | None = None) -> Enrolled:
    """Trade a one-time token and a certificate request for an identity.

    Args:
        base_url: the fleet's listener for devices.
        request: token and certificate request.
        now: the time by which the server's certificate is judged; the wall clock by default.

    Raises:
        TrustError: the token is wrong, used or expired.
        RemoteError: the fleet cannot be reached.
        UserError: the address is none.
    """
    with http_client(base_url, None, _TIMEOUT, of="fleet", now=now) as client:
        _, content, _ = _ask(client, "POST", "/device/v1/enroll", encode(request))
    return decode(content, Enrolled)


def _ask(
    client: httpx.Client, method: str, path: str, body: bytes | None
) -> tuple[int, bytes, httpx.Headers]:
    """A good answer's status, body (of no more bytes than an envelope may have) and headers."""
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
    return response.status_code, bytes(data), response.headers


def _refused(status: int, body: bytes) -> TrustError | RemoteError:
    try:
        detail = msgspec.json.decode(body, type=_Problem).detail
    except (msgspec.DecodeError, ValueError, RecursionError):
        detail = body[:200].decode(errors="replace")
    what = f"The fleet answered {status}."
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return TrustError(what, why=detail)
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        return Unfit(what, why=detail)
    return RemoteError(what, why=detail)
