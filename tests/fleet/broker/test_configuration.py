"""The configuration that we write, run by Debian's Mosquitto; and the same rules of our broker.

A device that speaks or listens as another, or takes another's name, gets nothing by it.
"""

import datetime as dt
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from typer.testing import CliRunner

from cloud_sync.messages import Down, Up, topic
from cloud_sync.mqtt_session import MqttSession, require
from cloud_sync.trust import PrivateKey, generate, save_key
from cloud_sync.trust.identity import issue, make_ca, make_crl
from edgeml.cli import app
from edgeml.errors import RemoteError, UserError
from fleet.broker import SUPERUSER
from fleet.broker.certificates import issue_server
from fleet.broker.configuration import LARGEST, Place, emqx, mosquitto
from fleet.keys import load_or_create
from tests.e2e.loop import _free_port, until
from tests.edge_agent.test_link import BrokerThread
from tests.needs import program

PLACE = Place(folder="/etc/b", authorities="/etc/b/authorities.pem", revoked="/etc/b/crl.pem")


class Client:
    """A session and what it heard."""

    def __init__(self, url: str, name: str, *filters: str, **how: object) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.session = MqttSession(
            url,
            name,
            on_message=lambda topic, payload: self.heard.append((topic, payload)),
            subscriptions=filters,
            **how,  # type: ignore[arg-type]
        )
        self.session.start()


class Written:
    """Mosquitto on the files that `edgeml fleet broker-config mosquitto` wrote, unchanged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "broker"
        self.data = folder / "fleet"
        self.port, self.web_port = _free_port(), _free_port()
        self._log = folder / "mosquitto.log"
        self.opened: list[Client] = []
        done = CliRunner().invoke(
            app,
            [
                *("fleet", "broker-config", "mosquitto", "--host", "localhost"),
                *("--data", str(self.data), "--out", str(self.folder), "--state", str(folder)),
                *("--port", str(self.port), "--websockets", str(self.web_port)),
                *("--listen", "127.0.0.1", "--user", _me()),
            ],
        )
        assert done.exit_code == 0, done.output
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [program("mosquitto", "mosquitto"), "-v", "-c", self.folder / "mosquitto.conf"],
                stdout=log,
                stderr=log,
            )
        until("Mosquitto", lambda: "running" in self.log or process.poll() is not None, 30)
        assert process.poll() is None, self.log
        return process

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    @property
    def web_url(self) -> str:
        return f"wss://localhost:{self.web_port}/mqtt"

    def certificate(self, name: str) -> Path:
        """A device's certificate of the fleet's authority, its key beside it."""
        path = self.folder / f"{name}.pem"
        if not path.exists():
            key = generate()
            ca, ca_key = self.authority()
            now = dt.datetime.now(dt.UTC)
            path.write_text(issue(name, key.public_key(), ca, ca_key, now))
            save_key(key, path.with_suffix(".key"))
        return path

    def authority(self) -> tuple[str, PrivateKey]:
        """The fleet's own, and its key."""
        keys = load_or_create(self.data, dt.datetime.now(dt.UTC))
        return keys.ca, keys.ca_key

    def client(self, name: str, *filters: str, client_id: str = "", url: str = "") -> Client:
        mine = self.folder / "fleet.pem" if name == SUPERUSER else self.certificate(name)
        tls = (self.folder / "authorities.pem", mine, mine.with_suffix(".key"))
        made = Client(url or self.url, client_id or name, *filters, tls=tls)
        self.opened.append(made)
        return made

    def stop(self) -> None:
        for client in self.opened:
            client.session.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Embedded:
    """The embedded broker, behind the same questions."""

    def __init__(self, _folder: Path) -> None:
        self._thread = BrokerThread()
        self.url = self._thread.start()
        self.opened: list[Client] = []

    def client(self, name: str, *filters: str, client_id: str = "") -> Client:
        made = Client(self.url, client_id or name, *filters, username=name, password="p")
        self.opened.append(made)
        return made

    def stop(self) -> None:
        for client in self.opened:
            client.session.close()
        self._thread.close()


Broker = Written | Embedded


@pytest.fixture(params=[Written, Embedded], ids=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    made: Broker = request.param(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path)
    yield made
    made.stop()


def _me() -> str:
    return "root" if os.geteuid() == 0 else os.environ["USER"]


def connected(client: Client) -> Client:
    require(client.session, 30)
    return client


def test_both_ways_within_a_devices_own_topics(broker: Broker) -> None:
    fleet = connected(broker.client(SUPERUSER, "edgeml/v1/+/up/#"))
    device = connected(broker.client("cam-1", topic("cam-1", Down.COMMAND)))
    device.session.publish(topic("cam-1", Up.STATE), b"up")
    fleet.session.publish(topic("cam-1", Down.COMMAND), b"down")
    until("both", lambda: fleet.heard and device.heard, 30)
    assert fleet.heard == [(topic("cam-1", Up.STATE), b"up")]
    assert device.heard == [(topic("cam-1", Down.COMMAND), b"down")]


def test_a_device_that_publishes_under_anothers_topic_is_not_heard(broker: Broker) -> None:
    fleet = connected(broker.client(SUPERUSER, "#"))
    thief = connected(broker.client("cam-2"))
    for name in (topic("cam-1", Up.STATE), topic("cam-1", Down.DESIRED), "edgeml/v1/x", "x"):
        thief.session.publish(name, b"forged")
        thief.session.publish(name, b"forged", retain=True)
    thief.session.publish(topic("cam-2", Up.STATE), b"own")
    until("its own", lambda: fleet.heard, 30)
    assert fleet.heard == [(topic("cam-2", Up.STATE), b"own")]
    later = connected(broker.client("cam-1", topic("cam-1", Down.DESIRED)))
    fleet.session.publish(topic("cam-1", Down.DESIRED), b"honest")
    until("what is honest", lambda: later.heard, 30)
    assert later.heard == [(topic("cam-1", Down.DESIRED), b"honest")]


@pytest.mark.parametrize("wanted", ["edgeml/v1/cam-1/#", "edgeml/v1/+/down/#", "#", "+/+/+/#"])
def test_a_device_that_subscribes_to_anothers_topic_hears_nothing(
    broker: Broker, wanted: str
) -> None:
    fleet = connected(broker.client(SUPERUSER))
    thief = connected(broker.client("cam-2", wanted, topic("cam-2", Down.ACK)))
    fleet.session.publish(topic("cam-1", Down.DESIRED), b"secret")
    fleet.session.publish(topic("cam-2", Down.ACK), b"own")
    until("its own", lambda: (topic("cam-2", Down.ACK), b"own") in thief.heard, 30)
    assert {name for name, _ in thief.heard} == {topic("cam-2", Down.ACK)}


def test_a_device_that_gives_anothers_client_id_takes_nothing_of_it(broker: Broker) -> None:
    fleet = connected(broker.client(SUPERUSER))
    victim = connected(broker.client("cam-1", topic("cam-1", Down.DESIRED)))
    thief = broker.client("cam-2", topic("cam-1", Down.DESIRED), client_id="cam-1")
    if isinstance(broker, Embedded):
        until("the refusal", lambda: thief.session.last_error, 30)
        assert "Client identifier not valid" in thief.session.last_error
    else:
        require(thief.session, 30)
        assert re.search(r"New client connected .* as cam-2 \(.*u'cam-2'\)", broker.log)
    fleet.session.publish(topic("cam-1", Down.DESIRED), b"for one")
    until("it comes", lambda: victim.heard, 30)
    assert victim.session.connected
    assert thief.heard == []


def test_over_websockets_the_same_rules_hold(written: Written) -> None:
    fleet = connected(written.client(SUPERUSER, "#", url=written.web_url))
    device = connected(written.client("cam-1", topic("cam-1", Down.ACK), url=written.web_url))
    device.session.publish(topic("cam-2", Up.STATE), b"forged")
    device.session.publish(topic("cam-1", Up.STATE), b"own")
    fleet.session.publish(topic("cam-1", Down.ACK), b"ack")
    until("both", lambda: fleet.heard and device.heard, 30)
    assert (topic("cam-2", Up.STATE), b"forged") not in fleet.heard
    assert device.heard == [(topic("cam-1", Down.ACK), b"ack")]


def test_a_large_message_passes_and_a_larger_one_is_not_sent(written: Written) -> None:
    fleet = connected(written.client(SUPERUSER, "edgeml/v1/+/up/#"))
    device = connected(written.client("cam-1"))
    assert not device.session.publish(topic("cam-1", Up.STATE), b"x" * LARGEST)
    assert device.session.publish(topic("cam-1", Up.STATE), b"x" * (2 << 20))
    until("the large one", lambda: fleet.heard, 60)
    assert len(fleet.heard[0][1]) == 2 << 20
    assert device.session.connected


def test_who_is_revoked_is_let_in_no_more_after_a_reload(written: Written) -> None:
    one, two = connected(written.client("cam-1")), connected(written.client("cam-2"))
    for client in (one, two):
        client.session.close()
    pem = written.certificate("cam-1").read_bytes()
    serial = x509.load_pem_x509_certificate(pem).serial_number
    now = dt.datetime.now(dt.UTC)
    ca, ca_key = written.authority()
    listed = make_crl(ca, ca_key, [(serial, now.timestamp())], now)
    (written.folder / "crl.pem").write_text(listed)
    written.process.send_signal(signal.SIGHUP)
    until("the reload", lambda: "Reloading config" in written.log, 30)
    refused = written.client("cam-1")
    until("the refusal", lambda: refused.session.last_error, 30)
    with pytest.raises(RemoteError, match="may not accept this client's certificate"):
        require(refused.session, 0.1)
    connected(written.client("cam-2"))


def test_without_a_certificate_nobody_is_let_in(written: Written) -> None:
    authorities = written.folder / "authorities.pem"
    stranger = Client(written.url, "cam-1", tls=(authorities, None, None))
    written.opened.append(stranger)
    until("the refusal", lambda: stranger.session.last_error, 30)
    assert not stranger.session.connected


def test_emqx_gets_the_same_rules_in_its_own_words() -> None:
    files = emqx(msgspec.structs.replace(PLACE, websockets=8084))
    conf = files["emqx.conf"]
    assert conf.count("{") == conf.count("}")
    assert conf.count("verify = verify_peer") == conf.count("fail_if_no_peer_cert = true") == 2
    assert "peer_cert_as_clientid = cn" in conf
    assert "no_match = deny" in conf
    assert files["acl.conf"].splitlines()[1:] == [
        '{allow, {username, "edgeml-fleet"}, all, ["#"]}.',
        '{allow, all, all, ["edgeml/v1/${username}/#"]}.',
        "{deny, all}.",
    ]


def test_without_websockets_there_is_no_second_listener() -> None:
    assert mosquitto(PLACE)["mosquitto.conf"].count("\nlistener ") == 1
    assert "listeners.wss.default.enable = false" in emqx(PLACE)["emqx.conf"]


@pytest.mark.parametrize("host", ["", "a b", "mqtts://broker", "..", "x/y"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    key = generate()
    now = dt.datetime.now(dt.UTC)
    with pytest.raises(UserError, match="no host's name"):
        issue_server([host], key.public_key(), make_ca(key, now), key, now)
