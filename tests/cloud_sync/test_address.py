"""What may be spoken to, and by which way, over real sockets."""

import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloud_sync.address import http_client
from cloud_sync.device_api import DeviceClient, enroll
from cloud_sync.messages import EnrollRequest
from cloud_sync.mqtt_session import MqttSession
from cloud_sync.release import Blobs
from cloud_sync.transfer import OciClient
from cloud_sync.trust import generate, save_key
from edgeml.errors import RemoteError, UserError
from fleet.client import FleetClient
from tests.cloud_sync.registries import DATA, DIGEST, FaultyRegistry, running

KEY = generate()
TIMEOUT = httpx.Timeout(5.0)


def client(url: str) -> httpx.Client:
    return http_client(url, None, TIMEOUT, of="fleet", follow_redirects=True)


@pytest.mark.parametrize(
    "use",
    [
        lambda host: enroll(f"http://{host}", EnrollRequest(token="t", csr="c")),
        lambda host: DeviceClient(f"http://{host}", "cam-1", KEY),
        lambda host: OciClient(f"http://{host}"),
        lambda host: FleetClient(f"http://{host}", "token"),
        lambda host: MqttSession(f"mqtt://{host}", "cam-1", on_message=lambda _t, _p: None),
    ],
)
@pytest.mark.parametrize("host", ["fleet.example", "192.0.2.7", "[2001:db8::7]", "127.0.0.1.evil"])
def test_nothing_is_said_to_another_machine_without_tls(
    use: Callable[[str], object], host: str
) -> None:
    with pytest.raises(UserError, match="speaks without TLS") as refusal:
        use(f"{host}:8081")
    assert refusal.value.fix.startswith(("Use https://", "Use mqtts://"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_what_stays_on_this_machine_needs_no_tls(host: str) -> None:
    client(f"http://{host}:8081").close()
    MqttSession(f"mqtt://{host}", "cam-1", on_message=lambda _t, _p: None)


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with running(FaultyRegistry()) as made:
        yield made


def test_a_redirect_off_this_machine_without_tls_is_not_followed(
    registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.redirect = "http://fleet.example"
    with (
        closing(OciClient(registry.url)) as puller,
        pytest.raises(RemoteError, match=r"leads to http://fleet\.example, without TLS"),
    ):
        puller.fetch_blob("m", DIGEST, len(DATA), Blobs(tmp_path))


def test_a_redirect_does_not_give_tls_up_even_on_this_machine(
    registry: FaultyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(FaultyRegistry()) as front:
        certificate = self_signed(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        front.socket = context.wrap_socket(front.socket, server_side=True)
        front.redirect = registry.url
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with (
            closing(client(front.url.replace("http://", "https://"))) as puller,
            pytest.raises(RemoteError, match=r"leads to http://127\.0\.0\.1, without TLS"),
        ):
            puller.get(f"/v2/m/blobs/{DIGEST}")
    assert registry.ranges == []


def test_no_proxy_hears_of_what_stays_on_this_machine(
    registry: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with closing(OciClient(registry.url)) as puller:
            assert puller.document("m", DIGEST) == DATA
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def self_signed(folder: Path, host: str = "127.0.0.1") -> Path:
    """A certificate for an address, its key beside it."""
    key, now = generate(), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    address = x509.IPAddress(ipaddress.ip_address(host))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, None)
    )
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    save_key(key, path.with_suffix(".key"))
    return path
