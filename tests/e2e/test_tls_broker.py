"""Fleet and agent over a broker of somebody else's, Debian's Mosquitto with TLS.

One authority, the fleet's, vouches for the broker and for everybody who connects to it: the
broker takes a name from the certificate alone, and its access rules keep devices apart.
"""

import datetime as dt
import getpass
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud_sync.messages import Down, Up, topic
from cloud_sync.mqtt_session import MqttSession, require
from cloud_sync.trust import PrivateKey, generate, load_key, save_key
from cloud_sync.trust.identity import issue, make_ca, make_crl
from edgeml.errors import ExitCode, RemoteError
from fleet.broker.configuration import Place, mosquitto
from fleet.broker.credentials import SUPERUSER
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, _free_port, until
from tests.needs import program

pytestmark = pytest.mark.e2e
DEVICE = "cam-1"
NOW = dt.datetime.now(dt.UTC)


@dataclass
class Authority:
    """A CA with its files."""

    key: PrivateKey
    certificate: str
    path: Path

    @classmethod
    def make(cls, path: Path) -> "Authority":
        key = generate()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = cls(key, make_ca(key, NOW), path)
        path.write_text(made.certificate)
        save_key(key, path.with_suffix(".key"))
        return made

    def server(self, path: Path, name: str, *, ends: dt.timedelta = dt.timedelta(days=1)) -> Path:
        """A broker's certificate for a host's name, its key beside it."""
        key = generate()
        issuer = x509.load_pem_x509_certificate(self.certificate.encode())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=2))
            .not_valid_after(NOW + ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
            .sign(self.key, None)
        )
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        save_key(key, path.with_suffix(".key"))
        return path

    def client(self, path: Path, name: str) -> Path:
        """A client's certificate, its key beside it."""
        key = generate()
        path.write_text(issue(name, key.public_key(), self.certificate, self.key, NOW))
        save_key(key, path.with_suffix(".key"))
        return path


class Broker:
    """Mosquitto with TLS on a free port; a client's name is that of its certificate."""

    def __init__(self, folder: Path, ca: Path, certificate: Path) -> None:
        self.port, self.web_port = _free_port(), _free_port()
        self.url = f"mqtts://localhost:{self.port}"
        self.web_url = f"wss://localhost:{self.web_port}/mqtt"
        self._log = folder / "mosquitto.log"
        assert certificate == folder / "broker.pem"
        revoked = folder / "crl.pem"
        revoked.write_text(make_crl(ca.read_text(), load_key(ca.with_suffix(".key")), [], NOW))
        place = Place(
            folder=str(folder),
            authorities=str(ca),
            revoked=str(revoked),
            address="127.0.0.1",
            port=self.port,
            websockets=self.web_port,
            user=getpass.getuser(),
            state=str(folder),
        )
        for name, text in mosquitto(place).items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        config = folder / "mosquitto.conf"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program("mosquitto", "mosquitto"), "-v", "-c", str(config)],
                stdout=log,
                stderr=log,
            )
        until("Mosquitto", lambda: "running" in self.log, 10)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)


@dataclass
class Site:
    """A folder with the fleet's authority, and a broker whose certificate is for localhost."""

    folder: Path
    authority: Authority
    fleet: Path
    broker: Broker
    broker_ca: Path | None = None

    def options(self, url: str = "", ca: Path | None = None) -> tuple[str, ...]:
        """The options of `edgeml fleet up` that name the broker."""
        return (
            *(
                "--broker",
                url or self.broker.url,
                "--broker-ca",
                str(ca or self.broker_ca or self.authority.path),
            ),
            *(
                "--broker-cert",
                str(self.fleet),
                "--broker-key",
                str(self.fleet.with_suffix(".key")),
            ),
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = Authority.make(tmp_path / "fleet" / "keys" / "ca.pem")
    certificate = authority.server(tmp_path / "broker.pem", "localhost")
    broker = Broker(tmp_path, authority.path, certificate)
    yield Site(tmp_path, authority, authority.client(tmp_path / "up.pem", SUPERUSER), broker)
    broker.stop()


class OutsideLoop(Loop):
    """The loop over the site's broker."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.folder)
        self._site = site

    def command(self, *options: str) -> tuple[str, ...]:
        port, device_port, _ = map(str, self.ports)
        where = ("--port", port, "--device-port", device_port)
        return ("fleet", "up", "--data", str(self.folder / "fleet"), *where, *options)

    def start_fleet(self) -> None:
        self._start("fleet", *self.command(*self._site.options()))
        until("the fleet", self._answers)


@pytest.fixture
def loop(site: Site) -> Iterator[OutsideLoop]:
    made = OutsideLoop(site)
    yield made
    made.close()


def session(site: Site, name: str, url: str = "") -> MqttSession:
    """A client with a certificate of the site's authority."""
    mine = site.authority.client(site.folder / f"{name}.pem", name)
    made = MqttSession(
        url or site.broker.url,
        name,
        on_message=lambda _topic, _payload: None,
        tls=(site.authority.path, mine, mine.with_suffix(".key")),
    )
    made.start()
    return made


def refused_up(loop: OutsideLoop, *options: str) -> tuple[int, dict[str, str]]:
    """The exit code and the error of an `edgeml fleet up` that does not come up."""
    done = loop.run(*loop.command(*options, "--json"))
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["error"]


def test_a_device_says_hello_gets_its_state_and_reports_it_over_tls(
    loop: OutsideLoop, site: Site
) -> None:
    loop.start_fleet()
    loop.enroll(DEVICE)
    loop.start_agent(DEVICE)
    until("the device", lambda: loop.client.device(DEVICE)["online"])
    health = loop.client.health()
    assert health["broker"] == site.broker.url
    assert health["broker_connected"]
    layout, _ = make_release(site.folder / "release", "1.0.0")
    loop.client.push(layout.folder)
    ended = loop.finished(loop.roll_out("1.0.0"))
    assert ended["status"] == "completed", ended["sentence"]
    up = set(re.findall(rf"Received PUBLISH from {DEVICE} \(.*'edgeml/v1/(.*?)'", site.broker.log))
    down = set(re.findall(rf"Sending PUBLISH to {DEVICE} \(.*'edgeml/v1/(.*?)'", site.broker.log))
    assert up >= {f"{DEVICE}/{name}" for name in (Up.HELLO, Up.STATE, Up.EVIDENCE, Up.TELEMETRY)}
    assert down == {f"{DEVICE}/{name}" for name in (Down.DESIRED, Down.ACK)}
    assert "denied" not in site.broker.log.lower()
    assert loop.stop(DEVICE) == 0
    assert loop.stop("fleet") == 0
    assert "Traceback" not in loop.log("fleet") + loop.log(DEVICE)


def test_devices_trust_the_broker_by_the_authority_that_the_operator_names(
    tmp_path: Path,
) -> None:
    authority = Authority.make(tmp_path / "fleet" / "keys" / "ca.pem")
    other = Authority.make(tmp_path / "other" / "ca.pem")
    broker = Broker(tmp_path, authority.path, other.server(tmp_path / "broker.pem", "localhost"))
    mine = authority.client(tmp_path / "up.pem", SUPERUSER)
    loop = OutsideLoop(Site(tmp_path, authority, mine, broker, broker_ca=other.path))
    try:
        loop.start_fleet()
        loop.enroll(DEVICE)
        loop.start_agent(DEVICE)
        until("its hello", lambda: f"Received PUBLISH from {DEVICE}" in broker.log)
        assert "was refused" not in loop.log(DEVICE)
    finally:
        loop.close()
        broker.stop()


def test_fleet_and_device_speak_over_websockets_where_only_the_web_passes(site: Site) -> None:
    site.broker.url = site.broker.web_url
    loop = OutsideLoop(site)
    try:
        loop.start_fleet()
        loop.enroll(DEVICE)
        loop.start_agent(DEVICE)
        until("its hello", lambda: f"Received PUBLISH from {DEVICE}" in site.broker.log)
        until("the device", lambda: loop.client.device(DEVICE)["online"])
        assert loop.client.health()["broker"] == site.broker.web_url
        made = loop.client.command(DEVICE, "log-tail")
        until("done", lambda: loop.client.command_of(DEVICE, made["id"])["status"] == "done")
        assert f"{DEVICE}/{Down.COMMAND}" in site.broker.log
        assert f"{DEVICE}/{Up.RESULT}" in site.broker.log
    finally:
        loop.close()


def test_a_fleet_that_is_told_of_another_ca_does_not_come_up(loop: OutsideLoop, site: Site) -> None:
    other = Authority.make(site.folder / "other" / "ca.pem")
    code, error = refused_up(loop, *site.options(ca=other.path))
    assert code == ExitCode.TRUST
    assert error["what"] == f"The broker at localhost:{site.broker.port} was refused."
    assert f"{other.path} does not vouch for its certificate" in error["why"]
    assert error["fix"].startswith("Name the CA that issued it, or have that one issue")
    assert "--broker-ca" in error["fix"]


def test_a_fleet_that_is_told_of_another_host_does_not_come_up(
    loop: OutsideLoop, site: Site
) -> None:
    url = f"mqtts://127.0.0.1:{site.broker.port}"
    code, error = refused_up(loop, *site.options(url))
    assert code == ExitCode.TRUST
    assert error["what"] == f"The broker at 127.0.0.1:{site.broker.port} was refused."
    assert error["why"] == "Its certificate is for another name than 127.0.0.1."
    assert error["fix"].startswith("Use the name that the certificate has, or have one issued")


def test_a_device_that_trusts_another_ca_says_so_once_and_goes_on_over_https(
    loop: OutsideLoop, site: Site
) -> None:
    other = Authority.make(site.folder / "other" / "ca.pem")
    site.broker_ca = site.folder / "both.pem"  # more than the fleet's own, which devices know
    site.broker_ca.write_text(site.authority.certificate + other.certificate)
    loop.start_fleet()
    loop.enroll(DEVICE)
    trusted = site.folder / DEVICE / "identity" / "broker-ca.pem"
    assert trusted.read_text() == site.broker_ca.read_text()
    trusted.write_text(other.certificate)
    loop.start_agent(DEVICE)
    sentence = f"The broker at localhost:{site.broker.port} was refused. {trusted} does not vouch"
    until("the sentence", lambda: sentence in loop.log(DEVICE))
    until("its hello", lambda: loop.client.device(DEVICE)["last_seen"])
    until("more attempts", lambda: site.broker.log.count("SSL routines") > 2)
    assert loop.log(DEVICE).count(sentence) == 1
    assert "Traceback" not in loop.log(DEVICE)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--broker", "mqtt://127.0.0.1", "--broker-ca", "{ca}"], "do not go together"),
        (["--broker", "mqtts://localhost", "--broker-cert", "{ca}"], "belong together"),
        (["--broker", "mqtts://localhost", "--broker-ca", "{ca}x"], "cannot be read"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_starts(
    tmp_path: Path, options: list[str], what: str
) -> None:
    ca = Authority.make(tmp_path / "ca.pem").path
    given = ["fleet", "up", "--json", "--data", str(tmp_path / "fleet")]
    done = Loop(tmp_path).run(*given, *(option.format(ca=ca) for option in options))
    assert done.returncode == ExitCode.USAGE
    error = json.loads(done.stdout)["error"]
    assert what in error["what"]
    assert error["fix"]
    assert not (tmp_path / "fleet").exists()


def test_one_device_neither_speaks_nor_listens_as_another(site: Site) -> None:
    fleet = MqttSession(
        site.broker.url,
        SUPERUSER,
        on_message=lambda name, payload: heard.append((name, payload)),
        subscriptions=["#"],
        tls=(site.authority.path, site.fleet, site.fleet.with_suffix(".key")),
    )
    heard: list[tuple[str, bytes]] = []
    fleet.start()
    require(fleet, 10)
    device = session(site, "cam-2")
    require(device, 10)
    device.publish(topic(DEVICE, Up.STATE), b"forged")
    device.publish(topic("cam-2", Up.STATE), b"own")
    until("its own", lambda: heard, 10)
    assert heard == [(topic("cam-2", Up.STATE), b"own")]
    device.close()
    fleet.close()


def test_a_client_of_another_authority_is_told_where_to_look(site: Site) -> None:
    other = Authority.make(site.folder / "other" / "ca.pem")
    stranger = other.client(site.folder / "stranger.pem", DEVICE)
    made = MqttSession(
        site.broker.url,
        DEVICE,
        on_message=lambda _topic, _payload: None,
        tls=(site.authority.path, stranger, stranger.with_suffix(".key")),
    )
    made.start()
    until("the end", lambda: made.last_error, 10)
    with pytest.raises(RemoteError, match="may not accept this client's certificate"):
        require(made, 0.1)
    made.close()


def test_an_expired_certificate_is_waited_out(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "expired"
    folder.mkdir()
    past = dt.timedelta(days=-1)
    expired = site.authority.server(folder / "broker.pem", "localhost", ends=past)
    broker = Broker(folder, site.authority.path, expired)
    device = session(site, DEVICE, broker.url)
    until("the refusal", lambda: device.last_error, 10)
    assert device.refusal is None
    with pytest.raises(RemoteError, match=r"certificate has expired\. Renew the broker's"):
        require(device, 0.1)
    device.close()
    broker.stop()
    assert caplog.text.count("was refused") == 1


def test_a_broker_without_tls_is_said_so(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"this is not TLS\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        device = session(site, DEVICE, f"mqtts://localhost:{port}")
        until("the refusal", lambda: device.last_error, 10)
        said = device.last_error
        device.close()
        thread.join()
    assert said == f"No TLS with the broker at localhost:{port}: wrong version number."
