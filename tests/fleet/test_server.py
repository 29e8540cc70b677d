"""`edgeml fleet up` as a real process, with the embedded broker and with Mosquitto."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud_sync.device_api import DeviceClient, enroll
from cloud_sync.messages import (
    Ack,
    Down,
    EnrollRequest,
    MqttAccess,
    RecordKind,
    decode,
    encode,
    topic,
)
from cloud_sync.mqtt_session import MqttSession
from cloud_sync.outbox import Outbox
from cloud_sync.trust import PayloadType, generate, key_id, open_envelope, sign
from cloud_sync.trust.identity import make_request
from cloud_sync.trust.keys import load_public
from edgeml.errors import EdgemlError, RemoteError
from fleet.client import FleetClient

DEADLINE_S = 30.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def eventually(look: Callable[[], Any]) -> Any:
    """What `look` gives, once it is true."""
    end = time.monotonic() + DEADLINE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.03)


@dataclass
class Fleet:
    """A fleet's process and where it is."""

    data: Path
    ports: tuple[int, int, int]
    broker: str = ""
    process: subprocess.Popen[str] | None = None
    prefix: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        operators, devices, mqtt = self.ports
        options = ["--port", operators, "--device-port", devices, "--mqtt-port", mqtt]
        options += ["--broker", self.broker] if self.broker else []
        base = [sys.executable, "-m", "edgeml.cli", "fleet", "up", "--data", str(self.data)]
        return [*base, *map(str, options), "--json"]

    @property
    def devices(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def client(self) -> FleetClient:
        token = (self.data / "operator.token").read_text().strip()
        return FleetClient(f"http://127.0.0.1:{self.ports[0]}", token)

    def start(self) -> dict[str, Any]:
        """Start it and wait until it says that it is up."""
        log = (self.data.parent / "fleet.log").open("a")
        with log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.command], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = self.process.stdout.readline()
            assert line, (self.data.parent / "fleet.log").read_text()
            text += line
        said: dict[str, Any] = json.loads(text)
        return said

    def end(self, number: int) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        if self.process.stdout:
            self.process.stdout.close()
        self.process = None
        return code


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[str]:
    """A broker that somebody else runs."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        eventually(lambda: _answers(port))
        yield f"mqtt://127.0.0.1:{port}"
        process.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "fleet", (free_port(), free_port(), free_port()))
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


@dataclass
class Enrolled:
    """A device that is enrolled with a fleet's process."""

    key: Any
    director: Any
    outbox: Outbox
    mqtt: MqttAccess

    def open_ack(self, envelope: bytes) -> Ack:
        keys = {key_id(self.director): self.director}
        return decode(open_envelope(envelope, keys, PayloadType.ACK), Ack)


@pytest.fixture
def enrolled(up: Fleet, tmp_path: Path) -> Iterator[Callable[[], Enrolled]]:
    made: list[Enrolled] = []

    def make() -> Enrolled:
        with closing(up.client()) as client:
            token = client.enroll("cam-1", {}, 60)["token"]
        key = generate()
        answer = enroll(up.devices, EnrollRequest(token=token, csr=make_request("cam-1", key)))
        outbox = Outbox(tmp_path / "cam-1.outbox", "cam-1", "boot-1")
        made.append(Enrolled(key, load_public(answer.director_key), outbox, answer.mqtt))
        return made[-1]

    yield make
    for device in made:
        device.outbox.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_a_restart_goes_on(
    up: Fleet, number: int, enrolled: Callable[[], Enrolled], window: Any
) -> None:
    said = up.start()
    assert said["mqtt"] == f"mqtt://127.0.0.1:{up.ports[2]}"
    device = enrolled()
    with closing(up.client()) as client:
        client.configure("cam-1", {"telemetry_every_s": 2.5})
        before = client.device("cam-1")
    assert up.end(number) == 0
    assert len(said["first_admin"]["password"]) >= 20
    assert "first_admin" not in up.start()  # it is shown once
    with closing(up.client()) as client:
        after = client.device("cam-1")
        assert after["desired"] == before["desired"]
        assert after["key_id"] == before["key_id"]
        assert client.health()["frozen"] == ""
        assert client.verify_audit() > 0
    with closing(DeviceClient(up.devices, "cam-1", device.key)) as talk:
        assert talk.desired() is not None
    assert up.end(signal.SIGTERM) == 0
    log = (up.data.parent / "fleet.log").read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


@pytest.mark.parametrize("broker", ["embedded", "mosquitto"])
def test_a_device_talks_over_the_broker(
    up: Fleet,
    enrolled: Callable[[], Enrolled],
    window: Any,
    broker: str,
    request: pytest.FixtureRequest,
) -> None:
    if broker == "mosquitto":
        up.broker = request.getfixturevalue("mosquitto")
    up.start()
    device = enrolled()
    acks: list[bytes] = []
    came = threading.Event()

    def received(_name: str, payload: bytes) -> None:
        acks.append(payload)
        came.set()

    session = MqttSession(
        device.mqtt.url,
        "cam-1",
        username=device.mqtt.username,
        password=device.mqtt.password,
        on_message=received,
        subscriptions=[topic("cam-1", Down.ACK)],
    )
    session.start()
    assert session.wait_connected(DEADLINE_S)
    device.outbox.append(RecordKind.TELEMETRY, window(5))
    envelope = sign(encode(device.outbox.batch()), PayloadType.BATCH, device.key)
    # Until the subscription stands, the ack may pass by: the outbox would send again, too.
    eventually(lambda: session.publish("edgeml/v1/cam-1/up/telemetry", envelope) and came.wait(1.0))
    assert device.outbox.acknowledge(device.open_ack(acks[0])) == 1
    session.close()
    with closing(up.client()) as client:
        assert client.telemetry()[0]["window"]["inferred"] == 5
        assert client.health()["broker_connected"]


def test_kill_9_in_the_middle_of_ingest_loses_nothing_that_was_acknowledged(
    up: Fleet, enrolled: Callable[[], Enrolled], window: Any
) -> None:
    up.start()
    device = enrolled()
    total, acknowledged = 400, 0
    for number in range(1, total + 1):
        device.outbox.append(RecordKind.TELEMETRY, window(number))
    talk = DeviceClient(up.devices, "cam-1", device.key)

    def send() -> int:
        batch = device.outbox.batch(max_bytes=2000)
        if batch is None:
            return 0
        try:
            return device.outbox.acknowledge(device.open_ack(talk.send(batch)))
        except EdgemlError:
            device.outbox.failed(batch)
            return 0

    for kills in range(3):
        while acknowledged < (kills + 1) * 100:
            acknowledged += send()
        assert up.process is not None
        killer = threading.Timer(0.05, up.process.kill)
        killer.start()
        while killer.is_alive():
            acknowledged += send()
        killer.join()
        up.end(signal.SIGKILL)
        with pytest.raises(RemoteError):
            talk.desired()
        up.start()
        with closing(up.client()) as client:
            found = {item["window"]["inferred"] for item in client.telemetry(limit=1000)}
            assert len(found) >= acknowledged
            assert client.health()["frozen"] == ""
    while device.outbox.depth():
        acknowledged += send()
    talk.close()
    assert acknowledged == total
    with closing(up.client()) as client:
        windows = [item["window"]["inferred"] for item in client.telemetry(limit=1000)]
    assert sorted(windows) == list(range(1, total + 1))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_port_in_use_is_found_out_before_anything_starts(up: Fleet, which: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", up.ports[which]))
        other.listen()
        done = subprocess.run(up.command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert ("--port", "--device-port", "--mqtt-port")[which] in error["fix"]
    assert not (up.data / "keys").exists()


def test_the_console_opens_with_the_link_that_is_printed(up: Fleet) -> None:
    link = up.start()["login"]
    with httpx.Client(follow_redirects=True) as browser:
        page = browser.get(link)
        assert page.status_code == 200
        assert "edgeml fleet" in page.text
        assert browser.get(link.partition("?")[0]).status_code == 200
    with httpx.Client() as stranger:
        assert stranger.get(link).status_code == 401
        assert stranger.get(f"http://127.0.0.1:{up.ports[0]}/_nicegui/x").status_code == 401


def test_a_device_that_is_enrolled_again_loses_its_old_connection(
    up: Fleet, enrolled: Callable[[], Enrolled]
) -> None:
    up.start()
    device = enrolled()
    session = MqttSession(
        device.mqtt.url,
        "cam-1",
        username="cam-1",
        password=device.mqtt.password,
        on_message=lambda _topic, _payload: None,
    )
    session.start()
    assert session.wait_connected(DEADLINE_S)
    device.outbox.close()
    enrolled()
    eventually(lambda: not session.connected)
    eventually(lambda: "refused this client" in session.last_error)
    session.close()


def test_strangers_that_hold_all_they_can_do_not_stop_the_operator(up: Fleet) -> None:
    up.prefix = ("bash", "-c", 'ulimit -n 256; exec "$@"', "bash")
    half = b"POST /device/v1/enroll HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"
    up.start()
    with closing(up.client()) as client, ExitStack() as stack:
        for port in up.ports[:2]:
            for _ in range(150):
                stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                with suppress(ConnectionError):
                    stranger.sendall(half)
        for _ in range(5):
            assert client.health()["broker_connected"]


def test_two_fleets_do_not_share_a_folder(up: Fleet) -> None:
    up.start()
    other = Fleet(up.data, (free_port(), free_port(), free_port()), up.broker)
    done = subprocess.run(other.command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "already up" in json.loads(done.stdout)["error"]["what"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--host", "0.0.0.0"], "operators' listener"),
        (["--device-host", "0.0.0.0"], "devices' listener"),
        (["--device-host", "0.0.0.0", "--tls-cert", "{tls}", "--tls-key", "{tls}"], "devices'"),
        (["--broker", "mqtt://broker.example"], "mqtt://broker.example"),
        (["--broker", "http://broker"], "no broker's address"),
        (["--database", "nonsense"], "database cannot be opened"),
        (["--tls-cert", "/nowhere"], "certificate and its key"),
    ],
)
def test_what_is_not_safe_or_wrong_is_refused(
    tmp_path: Path, options: list[str], what: str
) -> None:
    up = Fleet(tmp_path / "fleet", (free_port(), free_port(), free_port()))
    (tmp_path / "tls.pem").write_text("not looked at before the addresses are")
    given = [option.format(tls=tmp_path / "tls.pem") for option in options]
    done = subprocess.run([*up.command, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert what in json.loads(done.stdout)["error"]["what"]
    assert "Traceback" not in done.stderr
