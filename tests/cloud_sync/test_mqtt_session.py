"""The MQTT session, on Debian's Mosquitto and on the embedded broker's rules alike."""

import datetime as dt
import ipaddress
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud_sync.mqtt_session import CLOSE_S, MAX_QUEUED, MqttSession, Will, parse_url, require
from cloud_sync.trust import PrivateKey, generate, save_key
from cloud_sync.trust.identity import issue, make_ca
from edgeml.errors import RemoteError, TrustError, UserError
from tests.e2e.loop import _free_port, until
from tests.needs import program


class Mosquitto:
    """Debian's Mosquitto on a free port, with its state in a folder."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self._program = program("mosquitto", "mosquitto")
        self.port = _free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "user root",
            "persistence true",
            f"persistence_location {folder}/",
            *settings,
        ]
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self._program, "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def broker(mosquitto: Mosquitto) -> str:
    return mosquitto.url


class Client:
    """A session and what it received."""

    def __init__(
        self,
        url: str,
        name: str,
        *topics: str,
        will: Will | None = None,
        tls: tuple[Path, Path, Path] | None = None,
        handle: Callable[[bytes], None] = lambda _payload: None,
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.connects = 0
        self._handle = handle
        self.session = MqttSession(
            url,
            name,
            on_message=self._take,
            on_connect=self._connected,
            subscriptions=topics,
            will=will,
            tls=tls,
        )
        self.session.start()

    def _connected(self) -> None:
        self.connects += 1

    def _take(self, topic: str, payload: bytes) -> None:
        self.received.append((topic, payload))
        self._handle(payload)


def test_messages_go_both_ways_and_a_cut_client_leaves_its_will(broker: str) -> None:
    fleet = Client(broker, "fleet", "up/#")
    device = Client(broker, "cam", "down/#", will=Will(topic="up/presence", payload=b"gone"))
    require(fleet.session, 10)
    require(device.session, 10)
    assert device.session.publish("up/state", b"1")
    assert fleet.session.publish("down/ack", b"2")
    until("both messages", lambda: fleet.received and device.received, 10)
    assert fleet.received == [("up/state", b"1")]
    assert device.received == [("down/ack", b"2")]
    connection = device.session._client.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    until("the will", lambda: ("up/presence", b"gone") in fleet.received, 15)
    until("the device to come back by itself", lambda: device.connects > 1, 30)
    device.session.close()
    fleet.session.close()


def test_what_came_while_a_client_was_away_waits_for_it(broker: str) -> None:
    fleet = Client(broker, "fleet")
    require(fleet.session, 10)
    device = Client(broker, "cam", "down/#")
    require(device.session, 10)
    device.session.close()
    until("the device to be gone", lambda: not device.session.connected, 10)
    fleet.session.publish("down/desired", b"new")
    again = Client(broker, "cam", "down/#")
    until("the message", lambda: again.received == [("down/desired", b"new")], 15)
    again.session.close()
    fleet.session.close()


def test_nothing_is_taken_while_there_is_no_broker() -> None:
    lonely = Client(f"mqtt://127.0.0.1:{_free_port()}", "cam")
    assert not lonely.session.publish("up/state", b"1")
    with pytest.raises(RemoteError, match="cannot be reached"):
        require(lonely.session, 0.3)
    lonely.session.close()


@pytest.mark.parametrize("url", ["", "http://x", "mqtt://", "mqtt://x:port", "mqtt://x:99999"])
def test_what_is_no_brokers_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="no broker's address"):
        parse_url(url)


def test_a_session_outlives_a_broker_that_is_killed_and_comes_back(
    mosquitto: Mosquitto,
) -> None:
    device = Client(mosquitto.url, "cam", "down/#")
    fleet = Client(mosquitto.url, "fleet")
    require(device.session, 10)
    mosquitto.process.kill()
    mosquitto.process.wait(10)
    until("the loss to be noticed", lambda: not device.session.connected, 10)
    assert not device.session.publish("up/state", b"lost"), "nothing is taken meanwhile"
    mosquitto.start()
    until("both to be back", lambda: device.connects > 1 and fleet.session.connected, 30)
    assert fleet.session.publish("down/ack", b"after")
    until("a message", lambda: device.received == [("down/ack", b"after")], 10)
    device.session.close()
    fleet.session.close()


_DIES_IN_ITS_HANDLER = """
import os, signal, sys, threading
from cloud_sync.mqtt_session import MqttSession
session = MqttSession(
    sys.argv[1], "cam", subscriptions=["down/#"],
    on_connect=lambda: print("connected", flush=True),
    on_message=lambda topic, payload: os.kill(os.getpid(), signal.SIGKILL),
)
session.start()
threading.Event().wait()
"""


def test_a_message_that_killed_its_reader_comes_again(broker: str) -> None:
    fleet = Client(broker, "fleet")
    require(fleet.session, 10)
    with subprocess.Popen(
        [sys.executable, "-c", _DIES_IN_ITS_HANDLER, broker], stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"connected\n"
        fleet.session.publish("down/desired", b"new")
        assert reader.wait(20) == -signal.SIGKILL
    again = Client(broker, "cam", "down/#")
    until("the message", lambda: again.received == [("down/desired", b"new")], 15)
    again.session.close()
    fleet.session.close()


def test_a_handler_that_fails_does_not_end_the_session(
    broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(payload: bytes) -> None:
        if payload == b"bad":
            raise ValueError("a handler's fault")

    device = Client(broker, "cam", "down/#", handle=fail)
    require(device.session, 10)
    with caplog.at_level(logging.ERROR, "cloud_sync.mqtt_session"):
        for payload in (b"bad", b"good"):
            device.session.publish("down/x", payload)
        until("both", lambda: [p for _, p in device.received] == [b"bad", b"good"], 10)
    assert "the handler of a message failed" in caplog.text
    device.session.close()


def test_more_messages_than_may_be_in_flight_all_arrive_in_order(broker: str) -> None:
    fleet = Client(broker, "fleet", "up/#")
    device = Client(broker, "cam")
    require(fleet.session, 10)
    require(device.session, 10)
    sent = [str(i).encode() for i in range(500)]
    assert all(device.session.publish("up/t", payload) for payload in sent)
    until("all", lambda: len(fleet.received) >= len(sent), 30)
    assert [payload for _, payload in fleet.received] == sent
    device.session.close()
    fleet.session.close()


class Keeper:
    """A session that leaves what is delivered unacknowledged, for a test to do."""

    def __init__(self, url: str, name: str) -> None:
        self.delivered: list[tuple[bytes, Callable[[], None]]] = []
        self.session = MqttSession(
            url, name, on_delivery=self._delivered, subscriptions=["up/#"], receive_maximum=10
        )
        self.session.start()
        require(self.session, 60)

    def _delivered(self, _topic: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        self.delivered.append((payload, acknowledge))

    def has_some(self) -> bool:
        return bool(self.delivered)

    def payloads(self) -> list[bytes]:
        return [payload for payload, _ in self.delivered]


def test_what_is_acknowledged_while_the_session_closes_harms_nobody(broker: str) -> None:
    device = Client(broker, "cam")
    require(device.session, 60)
    faults: list[BaseException] = []
    for _ in range(20):
        fleet = Keeper(broker, "fleet")
        assert device.session.publish("up/t", b"1")
        until("the message", fleet.has_some, 60)
        over = threading.Event()

        def acknowledge(held: Keeper = fleet, over: threading.Event = over) -> None:
            try:
                while not over.is_set():
                    held.delivered[-1][1]()
            except BaseException as fault:  # noqa: BLE001 -- the test looks at it
                faults.append(fault)

        thread = threading.Thread(target=acknowledge)
        thread.start()
        fleet.session.close()
        over.set()
        thread.join()
    device.session.close()
    assert not faults


def test_an_acknowledgement_of_a_connection_that_was_cut_is_void(broker: str) -> None:
    fleet, device = Keeper(broker, "fleet"), Client(broker, "cam")
    require(device.session, 60)
    assert device.session.publish("up/t", b"1")
    until("the message", lambda: fleet.payloads() == [b"1"], 60)
    connection = fleet.session._client.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    until("the message again", lambda: fleet.payloads() == [b"1", b"1"], 60)
    fleet.delivered[0][1]()  # of the connection that is gone: the broker keeps the message
    fleet.session.close()
    again = Keeper(broker, "fleet")
    until("the message once more", lambda: again.payloads() == [b"1"], 60)
    again.delivered[0][1]()
    assert device.session.publish("up/t", b"2")
    until("another message", lambda: again.payloads() == [b"1", b"2"], 60)
    again.session.close()
    device.session.close()


def test_who_has_patience_waits_for_room_and_loses_nothing(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path, "max_queued_messages 0")  # it drops those of slow readers
    fleet = MqttSession(mosquitto.url, "fleet", patience_s=60)
    device = Client(mosquitto.url, "cam", "down/#")
    fleet.start()
    require(fleet, 60)
    require(device.session, 60)
    sent = [str(number).encode() for number in range(3 * MAX_QUEUED)]
    assert all(fleet.publish("down/desired", payload, patient=True) for payload in sent)
    until("all", lambda: len(device.received) >= len(sent), 60)
    assert [payload for _, payload in device.received] == sent
    device.session.close()
    fleet.close()
    mosquitto.stop()


def test_patience_ends_with_a_broker_that_hangs(mosquitto: Mosquitto) -> None:
    fleet = MqttSession(mosquitto.url, "fleet", patience_s=0.5)
    fleet.start()
    require(fleet, 60)
    mosquitto.process.send_signal(signal.SIGSTOP)
    taken = [fleet.publish("down/desired", b"x", patient=True) for _ in range(MAX_QUEUED + 200)]
    assert taken == [True] * MAX_QUEUED + [False] * 200
    fleet.close()


def test_who_has_no_patience_does_not_wait_for_a_broker_that_hangs(mosquitto: Mosquitto) -> None:
    fleet = MqttSession(mosquitto.url, "fleet", patience_s=3600)
    fleet.start()
    require(fleet, 60)
    mosquitto.process.send_signal(signal.SIGSTOP)
    taken = [fleet.publish("down/ack", b"x") for _ in range(MAX_QUEUED + 200)]
    assert taken == [True] * MAX_QUEUED + [False] * 200
    fleet.close()


def test_closing_takes_a_bounded_time_though_the_broker_hangs(mosquitto: Mosquitto) -> None:
    device = Client(mosquitto.url, "cam")
    require(device.session, 10)
    mosquitto.process.send_signal(signal.SIGSTOP)
    for _ in range(200):
        device.session.publish("up/t", bytes(100_000))
    began = time.monotonic()
    device.session.close()
    assert time.monotonic() - began < CLOSE_S + 5


def refuse_a_subscription(listener: socket.socket) -> None:
    """A broker's first answers: CONNACK, then a SUBACK that says "not authorized"."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(bytes([0x20, 3, 0, 0, 0]))
        subscribe = connection.recv(4096)
        connection.sendall(bytes([0x90, 4, *subscribe[2:4], 0, 0x87]))
        connection.recv(4096)


def test_a_subscription_that_is_refused_is_said_so(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        broker = threading.Thread(target=refuse_a_subscription, args=[listener])
        broker.start()
        url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        with caplog.at_level(logging.WARNING, "cloud_sync.mqtt_session"):
            device = Client(url, "cam", "down/#")
            require(device.session, 10)
        device.session.close()
        broker.join()
    assert "the broker refuses a subscription to down/#: Not authorized" in caplog.text


def server_certificate(key: PrivateKey, ca: str, ca_key: PrivateKey, now: dt.datetime) -> bytes:
    issuer = x509.load_pem_x509_certificate(ca.encode())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=True,
        )
        .sign(ca_key, None)
    )
    return certificate.public_bytes(Encoding.PEM)


def test_a_device_proves_itself_to_a_broker_with_its_certificate(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    ca_key, server_key, device_key, stranger_ca_key = (generate() for _ in range(4))
    ca, stranger_ca = make_ca(ca_key, now), make_ca(stranger_ca_key, now)
    files = {
        "ca.pem": ca.encode(),
        "server.pem": server_certificate(server_key, ca, ca_key, now),
        "cam.pem": issue("cam", device_key.public_key(), ca, ca_key, now).encode(),
        "stranger.pem": issue(
            "cam", device_key.public_key(), stranger_ca, stranger_ca_key, now
        ).encode(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    save_key(server_key, tmp_path / "server.key")
    save_key(device_key, tmp_path / "cam.key")
    mosquitto = Mosquitto(
        tmp_path,
        f"cafile {tmp_path / 'ca.pem'}",
        f"certfile {tmp_path / 'server.pem'}",
        f"keyfile {tmp_path / 'server.key'}",
        "require_certificate true",
        "use_identity_as_username true",
    )
    url = f"mqtts://127.0.0.1:{mosquitto.port}"
    ca_file, key_file = tmp_path / "ca.pem", tmp_path / "cam.key"
    device = Client(url, "cam", "down/#", tls=(ca_file, tmp_path / "cam.pem", key_file))
    require(device.session, 10)
    device.session.publish("down/x", b"over tls")
    until("the message", lambda: device.received == [("down/x", b"over tls")], 10)
    device.session.close()
    stranger = Client(url, "cam", tls=(ca_file, tmp_path / "stranger.pem", key_file))
    with pytest.raises(RemoteError):
        require(stranger.session, 1)
    stranger.session.close()
    mosquitto.stop()


def test_certificates_that_cannot_be_read_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="cannot be read"):
        Client("mqtts://127.0.0.1", "cam", tls=(tmp_path / "a", tmp_path / "b", tmp_path / "c"))
