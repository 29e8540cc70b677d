"""A fleet of several processes over real parts, and devices that know only how to answer.

Debian's PostgreSQL, Mosquitto with the files of `edgeml fleet broker-config`, and docker-registry;
of `edgeml fleet serve` as many processes of each role as a test starts. The devices have real
keys, outboxes and connections over MQTT and HTTPS, and no model: they answer what they are told.
"""

import getpass
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cloud_sync.device_api import DeviceClient
from cloud_sync.device_api import enroll as enroll_over_http
from cloud_sync.messages import (
    Batch,
    DesiredModel,
    Down,
    EnrollRequest,
    Phase,
    RecordKind,
    Up,
    encode,
    topic,
)
from cloud_sync.mqtt_session import MqttSession
from cloud_sync.outbox import Outbox
from cloud_sync.release import Blobs, Release
from cloud_sync.transfer import OciClient
from cloud_sync.trust import PayloadType, generate, save_key, sign
from cloud_sync.trust.identity import make_request
from edgeml.errors import EdgemlError
from fleet.client import FleetClient
from fleet.leader import LOCK
from tests.cloud_sync.programs import docker_registry
from tests.e2e.loop import _free_port, until
from tests.fleet.conftest import Device, gate, make_evidence, make_window, reported
from tests.needs import program
from tests.sim.postgresql import PostgreSQL

POLICY = """
soak_s = 0.5
[[waves]]
count = 1
[[waves]]
percent = 50
[[waves]]
percent = 100
[limits]
in_flight = 3
"""


class Cluster:
    """See the module; `up` makes one."""

    def __init__(self, folder: Path, postgresql: PostgreSQL, registry: str) -> None:
        self.folder = folder
        self.registry = registry
        self.postgresql = postgresql
        self.database = postgresql.create()
        self.data = folder / "fleet"
        self.broker = folder / "broker"
        self.broker_port, self.members_port = _free_port(), _free_port()
        self.apis: list[tuple[int, int]] = []
        self._numbers = itertools.count(1)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.write_broker()

    def write_broker(self) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "edgeml.cli", "fleet", "broker-config", "mosquitto"),
                *("--host", "localhost", "--listen", "127.0.0.1", "--user", getpass.getuser()),
                *("--data", str(self.data), "--out", str(self.broker)),
                *("--state", str(self.folder), "--port", str(self.broker_port)),
                *("--members", str(self.members_port)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self._run(
            "mosquitto",
            program("mosquitto", "mosquitto"),
            "-c",
            str(self.broker / "mosquitto.conf"),
        )

    def start(self, *roles: str) -> str:
        """Start a process with these roles; returns its name."""
        name = f"{'-'.join(roles)}-{next(self._numbers)}"
        ports = (_free_port(), _free_port())
        if "api" in roles:
            self.apis.append(ports)
        self._run(
            name,
            *(sys.executable, "-m", "edgeml.cli", "fleet", "serve"),
            *(part for role in roles for part in ("--role", role)),
            *("--data", str(self.data), "--database", self.database),
            *("--port", str(ports[0]), "--device-port", str(ports[1])),
            *("--broker", f"mqtts://localhost:{self.members_port}"),
            *("--device-broker", f"mqtts://localhost:{self.broker_port}"),
            *("--broker-ca", str(self.broker / "authorities.pem")),
            *("--broker-cert", str(self.broker / "member.pem")),
            *("--broker-key", str(self.broker / "member.key")),
            *("--registry", self.registry),
        )
        return name

    def is_up(self, name: str) -> bool:
        """Whether a process says that it is up."""
        assert self._processes[name].poll() is None, self.log(name)
        return "Ctrl-C ends it." in self.log(name)

    def client(self, number: int = 0) -> FleetClient:
        """A client of one of the API's processes."""
        token = (self.data / "operator.token").read_text().strip()
        return FleetClient(f"http://127.0.0.1:{self.apis[number % len(self.apis)][0]}", token)

    def devices_url(self, number: int) -> str:
        """Where a device finds one of the API's processes."""
        return f"http://127.0.0.1:{self.apis[number % len(self.apis)][1]}"

    def leader(self) -> str:
        """The name of the process that holds the lock; empty while none does."""
        rows = self.sql(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            f"AND (classid::bigint << 32) + objid::bigint = {LOCK}"
        )
        if not rows[0][0]:
            return ""
        (host_and_pid,) = self.sql("SELECT value FROM facts WHERE name = 'leader.name'")[0]
        pid = int(host_and_pid.rpartition(":")[2])
        return next((n for n, child in self._processes.items() if child.pid == pid), "")

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the fleet's database."""
        return self.postgresql.execute(statement, self.database.rpartition("/")[2])

    def kill(self, name: str) -> None:
        """`kill -9`."""
        child = self._processes.pop(name)
        child.kill()
        child.wait()

    def signal(self, name: str, number: int) -> None:
        """Pause it, or let it go on."""
        os.kill(self._processes[name].pid, number)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def close(self) -> None:
        for child in reversed(self._processes.values()):
            child.send_signal(signal.SIGCONT)
            child.terminate()
        for child in self._processes.values():
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _run(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)


class Edge(threading.Thread):
    """A device: takes what is wanted, fetches its bytes, says that it runs, and that again."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(name=f"cam-{number}", daemon=True)
        self._cluster = cluster
        self._number = number
        self._stop_it = threading.Event()
        self._heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.assigned: list[tuple[str, int]] = []
        self.faults: list[str] = []
        self.sent = 0
        self._blobs = Blobs(cluster.folder / self.name / "blobs")
        with cluster.client(number) as client:
            token = client.enroll(self.name, {"site": "test"}, 600.0)["token"]
        key = generate()
        enrolled = enroll_over_http(
            cluster.devices_url(number),
            EnrollRequest(token=token, csr=make_request(self.name, key)),
        )
        home = cluster.folder / self.name
        home.mkdir(exist_ok=True)
        (home / "own.pem").write_text(enrolled.certificate)
        save_key(key, home / "own.key")
        self.device = Device(self.name, key, enrolled, Outbox(home / "outbox", self.name, "boot-1"))
        assert enrolled.mqtt is not None
        self._mqtt = MqttSession(
            enrolled.mqtt.url,
            self.name,
            on_message=lambda name, payload: self._heard.put((name, payload)),
            subscriptions=[topic(self.name, Down.DESIRED), topic(self.name, Down.ACK)],
            tls=(cluster.broker / "authorities.pem", home / "own.pem", home / "own.key"),
        )

    def run(self) -> None:
        self._mqtt.start()
        self._mqtt.wait_connected(30)
        turn = self._number
        while not self._stop_it.is_set():
            turn += 1
            try:
                self._listen()
                self._ask(turn)
                self._say(turn)
            except EdgemlError:
                pass  # a process that was killed; the next turn asks another one
            except Exception as error:  # noqa: BLE001 -- told at the end of the test
                self.faults.append(repr(error))
        self._mqtt.close()

    def end(self) -> None:
        self._stop_it.set()
        self.join(60)
        self.device.close()

    def _listen(self) -> None:
        """Take what came over MQTT, for half a second."""
        try:
            name, payload = self._heard.get(timeout=0.5)
        except queue.Empty:
            return
        if name.endswith(Down.ACK):
            self.device.outbox.acknowledge(self.device.open_ack(payload))
        else:
            self._take(payload)

    def _ask(self, turn: int) -> None:
        """HTTPS is the truth: ask one of the API's processes, another one each time."""
        url = self._cluster.devices_url(turn)
        client = DeviceClient(url, self.name, self.device.key)
        try:
            self._take(client.hello(self.device.hello()))
        finally:
            client.close()

    def _take(self, envelope: bytes | None) -> None:
        state = self.device.take(envelope)
        wanted = state.models.get("digits") if state else None
        if wanted is None or (wanted.rollout, wanted.attempt) in self.assigned:
            return
        self._fetch(wanted)
        self.assigned.append((wanted.rollout, wanted.attempt))
        outbox = self.device.outbox
        outbox.append(RecordKind.TELEMETRY, make_window(1))
        outbox.append(RecordKind.EVIDENCE, make_evidence(self.name, wanted, gate()))
        self.device.report("digits", reported(wanted, Phase.COMMITTED, wanted))
        self.sent += 3

    def _fetch(self, wanted: DesiredModel) -> None:
        """The release's bytes, from the registry that others run."""
        client = OciClient(self._cluster.registry)
        try:
            release: Release = client.release("digits", wanted.release)
            for file in release.variant(wanted.variant).files:
                client.fetch_blob("digits", file.digest, file.size, self._blobs)
                self._blobs.verify(file.digest)
        finally:
            client.close()

    def _say(self, turn: int) -> None:
        """Send what waits over MQTT, twice, and every other time over HTTPS, too."""
        self.device.outbox.resend()
        batch = self.device.outbox.batch()
        if batch is None:
            return
        envelope = sign(encode(batch), PayloadType.BATCH, self.device.key)
        for _ in range(2):
            self._mqtt.publish(topic(self.name, Up.TELEMETRY), envelope)
        if turn % 2:
            self._send(turn, batch)

    def _send(self, turn: int, batch: Batch) -> None:
        client = DeviceClient(self._cluster.devices_url(turn), self.name, self.device.key)
        try:
            self.device.outbox.acknowledge(self.device.open_ack(client.send(batch)))
        finally:
            client.close()


@contextmanager
def up(folder: Path, postgresql: PostgreSQL) -> Iterator[Cluster]:
    """Two processes of each role, and all that they need."""
    with ExitStack() as stack:
        registry = stack.enter_context(docker_registry(folder / "registry"))
        cluster = Cluster(folder, postgresql, registry)
        stack.callback(cluster.close)
        names = [cluster.start(role) for role in ("api", "ingest", "controller") for _ in "12"]
        for name in names:
            until(f"{name} to come up", lambda name=name: cluster.is_up(name), 120)
        yield cluster


def publish(cluster: Cluster, folder: Path) -> None:
    """Give a release to the fleet, whose leader pushes it to the registry that devices ask."""
    with cluster.client() as client:
        digest = client.push(folder)["digest"]

        def stands() -> str:
            return next(r["registry"] for r in client.releases() if r["digest"] == digest)

        until("the leader to push it", lambda: stands() == "pushed")


def explained(client: FleetClient, rollout: str) -> str:
    """What a rollout waits for, for the message of a test that fails."""
    return json.dumps(client.explain(rollout), default=str)[:2000]
