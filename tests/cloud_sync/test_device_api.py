"""The device's HTTPS talk with the fleet, over real HTTP with the real tokens."""

from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from cloud_sync.device_api import DeviceClient, enroll
from cloud_sync.messages import (
    Ack,
    Batch,
    Enrolled,
    EnrollRequest,
    Hello,
    MqttAccess,
    ReportedState,
    decode,
    encode,
)
from cloud_sync.transfer import OciClient
from cloud_sync.trust import PayloadType, generate, key_id, open_envelope, sign
from cloud_sync.trust.device_token import SCHEME, check_token, make_challenge
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES
from edgeml.errors import EdgemlError, RemoteError, TrustError, UserError
from hardware.capabilities import Capabilities
from tests.cloud_sync.registries import DATA, DIGEST, FaultyRegistry, running

KEY, DIRECTOR = generate(), generate()
KEYS = {key_id(KEY.public_key()): KEY.public_key()}
HELLO = Hello(
    device="cam-1",
    agent_version="1",
    boot_id="b",
    stream="s",
    capabilities=Capabilities(),
    reported=ReportedState(),
)
BATCH = Batch(device="cam-1", stream="s", boot_id="b", records=())
ENROLLED = Enrolled(
    device="cam-1", certificate="c", ca="c", director_key="k", mqtt=MqttAccess(url="mqtt://x")
)


class Fleet(ThreadingHTTPServer):
    """Checks tokens as the fleet does; `now` is its clock, `answer` what it gives then."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secret = b"secret"
        self.now = 1000.0
        self.answer: tuple[int, bytes] = (204, b"")
        self.requests: list[tuple[str, bytes]] = []
        self.refused = 0
        self.redirect = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Fleet

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_POST(self) -> None:
        fleet = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if fleet.redirect:
            self.give(307, b"", "Location", fleet.redirect + self.path)
            return
        if not self.path.endswith("/enroll"):
            try:
                token = self.headers.get("Authorization", "")
                check_token(token, KEY.public_key(), fleet.secret, fleet.now)
            except TrustError:
                fleet.refused += 1
                challenge = make_challenge(fleet.secret, fleet.now)
                self.give(401, b"", "WWW-Authenticate", f'{SCHEME} challenge="{challenge}"')
                return
        fleet.requests.append((self.path, body))
        self.give(*fleet.answer, "Content-Type", "application/json")

    do_GET = do_POST  # noqa: N815 -- the name that http.server calls

    def give(self, status: int, body: bytes, header: str, value: str) -> None:
        self.send_response(status)
        self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with running(Fleet()) as made:
        yield made


@pytest.fixture
def client(fleet: Fleet) -> Iterator[DeviceClient]:
    with closing(DeviceClient(fleet.url, "cam-1", KEY)) as made:
        yield made


def test_a_device_answers_the_challenge_once_and_again_when_it_is_too_old(
    fleet: Fleet, client: DeviceClient
) -> None:
    assert client.desired() is None
    assert client.desired() is None
    assert fleet.refused == 1
    fleet.now += 10_000
    assert client.desired() is None
    assert fleet.refused == 2


def test_another_key_is_refused_and_does_not_try_for_ever(fleet: Fleet) -> None:
    with (
        closing(DeviceClient(fleet.url, "cam-1", generate())) as stranger,
        pytest.raises(TrustError, match="401"),
    ):
        stranger.desired()
    assert fleet.refused == 2


def test_hello_is_signed_and_brings_the_desired_state(fleet: Fleet, client: DeviceClient) -> None:
    fleet.answer = (200, b"an envelope")
    assert client.hello(HELLO) == b"an envelope"
    [(path, body)] = fleet.requests
    assert path == "/device/v1/hello"
    assert decode(open_envelope(body, KEYS, PayloadType.HELLO), Hello) == HELLO


def test_records_are_signed_and_bring_the_ack(fleet: Fleet, client: DeviceClient) -> None:
    ack = sign(encode(Ack(device="cam-1", stream="s", through=3)), PayloadType.ACK, DIRECTOR)
    fleet.answer = (200, ack)
    assert client.send(BATCH) == ack
    [(path, body)] = fleet.requests
    assert path == "/device/v1/records"
    assert decode(open_envelope(body, KEYS, PayloadType.BATCH), Batch) == BATCH


def test_records_without_an_ack_are_not_stored(fleet: Fleet, client: DeviceClient) -> None:
    with pytest.raises(RemoteError, match="did not acknowledge"):
        client.send(BATCH)


@pytest.mark.parametrize(
    ("status", "body", "error", "word"),
    [
        (403, b'{"detail": "It was revoked."}', TrustError, "It was revoked"),
        (503, b'{"detail": "Its queue is full."}', RemoteError, "queue is full"),
        (500, b"<html>no problem document", RemoteError, "no problem document"),
        (500, b'{"detail": 7}', RemoteError, "500"),
        (500, b"\xff" * 400, RemoteError, "500"),
        (302, b"", RemoteError, "302"),
        (200, b" " * (MAX_ENVELOPE_BYTES + 1), RemoteError, "longer than"),
    ],
)
def test_what_the_fleet_refuses_is_said_by_who_must_act(
    fleet: Fleet,
    client: DeviceClient,
    status: int,
    body: bytes,
    error: type[EdgemlError],
    word: str,
) -> None:
    fleet.answer = (status, body)
    with pytest.raises(error, match=word):
        client.desired()


def test_enrolment_brings_an_identity(fleet: Fleet) -> None:
    fleet.answer = (200, encode(ENROLLED))
    request = EnrollRequest(token="t", csr="c")
    assert enroll(fleet.url + "/", request) == ENROLLED
    [(path, body)] = fleet.requests
    assert path == "/device/v1/enroll"
    assert decode(body, EnrollRequest) == request


@pytest.mark.parametrize("answer", [b"", b"[]", msgspec.json.encode({"device": "cam-1"})])
def test_an_enrolment_that_cannot_be_read_is_refused(fleet: Fleet, answer: bytes) -> None:
    fleet.answer = (200, answer)
    with pytest.raises(RemoteError, match="could not be read"):
        enroll(fleet.url, EnrollRequest(token="t", csr="c"))


@pytest.mark.parametrize(
    "use",
    [
        lambda url: enroll(url, EnrollRequest(token="t", csr="c")),
        lambda url: DeviceClient(url, "cam-1", KEY).desired(),
    ],
)
def test_a_fleet_that_is_not_there_is_said_so(use: Callable[[str], object]) -> None:
    with pytest.raises(RemoteError, match="cannot be reached"):
        use("http://127.0.0.1:9")
    for url in ("", "fleet:8081", "http://", "http://host:port"):
        with pytest.raises(UserError, match="no fleet's address"):
            use(url)


def test_blobs_come_with_the_devices_token_and_no_other_host_gets_a_signature(
    fleet: Fleet, client: DeviceClient
) -> None:
    with running(FaultyRegistry()) as other:
        challenge = f'{SCHEME} challenge="sign this"'
        other.answers = [(401, {"WWW-Authenticate": challenge})]
        fleet.redirect = other.url.replace("127.0.0.1", "localhost")
        with closing(OciClient(fleet.url, client.auth)) as registry:
            with pytest.raises(RemoteError, match="401"):
                registry.document("m", DIGEST)
            assert registry.document("m", DIGEST) == DATA
        assert set(other.authorizations) == {None}
