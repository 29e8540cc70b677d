"""Telemetry end to end, from a device's outbox over Mosquitto into the store, in records a second.

Beside it a bare pipe of paho and SQLite: a publisher that sends the same windows as JSON, QoS 1,
and a process that takes them and inserts them into a table with the same indices, one transaction
for what waits. The pipe keeps nothing on the device, signs nothing, and knows no record again;
ours ends when the fleet has acknowledged the last record, the pipe when its last row is committed.
Sender, broker and store are processes of their own on both sides. The bare pipe sends a record a
message; in a second row it gathers as many a message as the outbox does.
"""

import contextlib
import getpass
import json
import queue
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.fleet_bare import bare_database, write_bare
from benchmarks.measure import Row, interleave, ratio_row
from benchmarks.sync_outbox import window
from cloud_sync.messages import Batch, Hello, Record, RecordKind, ReportedState, encode
from cloud_sync.outbox import BATCH_BYTES, Outbox
from cloud_sync.trust.releases import ReleaseTrust
from edge_agent.link import FleetLink
from edge_agent.trust.director import Director
from edge_agent.trust.identity import enroll_device, load_identity
from edge_agent.update.journal import DeviceState
from edgeml.errors import RemoteError
from fleet.client import FleetClient
from hardware.capabilities import Capabilities

DEVICE = "bench-1"
TOGETHER = 200
GOAL = 0.7
PATIENCE_S = 60.0
_BODY = msgspec.json.encode(window())
A_MESSAGE = BATCH_BYTES // (len(_BODY) + 100)
T = TypeVar("T")
_TOPIC, _DONE = "bare/records", "bare/done"


def rows(quick: bool) -> Iterator[Row]:
    """Measure both pipes, each with its own broker and store."""
    records, rounds = (10_000, 7) if quick else (50_000, 9)
    with (
        tempfile.TemporaryDirectory() as folder,
        mosquitto(Path(folder) / "broker") as port,
        _Fleet(Path(folder) / "fleet", port) as ours,
        _Bare(Path(folder) / "bare.db", port) as peer,
    ):
        yield ratio_row(
            "telemetry.throughput_vs_bare_pipe",
            interleave(lambda: ours.send(records), lambda: peer.send(records, 1), rounds),
            unit="records/s",
            peer="paho to SQLite, a record a message",
            goal=f"at least {GOAL} x",
            at_least=GOAL,
        )
        yield ratio_row(
            "telemetry.throughput_vs_gathering_pipe",
            interleave(lambda: ours.send(records), lambda: peer.send(records, A_MESSAGE), rounds),
            unit="records/s",
            peer=f"paho to SQLite, {A_MESSAGE} records a message",
        )


class _Fleet:
    """`edgeml fleet up` on a broker, and a device's outbox and link in this process."""

    def __init__(self, folder: Path, broker: int) -> None:
        operators, devices = _free_port(), _free_port()
        self._process = _started(
            *("-m", "edgeml.cli", "fleet", "up", "--data", str(folder)),
            *("--port", str(operators), "--device-port", str(devices)),
            *("--broker", f"mqtt://127.0.0.1:{broker}"),
        )
        client = _when_up(folder, f"http://127.0.0.1:{operators}")
        token = client.enroll(DEVICE, {}, 600)["token"]
        client.close()
        config = enroll_device(f"http://127.0.0.1:{devices}", DEVICE, token, folder / DEVICE)
        self._outbox = Outbox(folder / "outbox.db", DEVICE, "boot", max_bytes=1 << 40)
        identity = load_identity(config)
        self._link = FleetLink(
            identity,
            Director(identity, DeviceState, _no_releases, lambda _refused: None),
            lambda: self._outbox,
            hello=_hello,
            state=DeviceState,
            on_desired=lambda _state, _envelope: None,
            on_command=lambda _envelope, _asked: None,
            boot_id="boot",
        )
        self._link.start()
        self._link.turn(2.0)

    def send(self, records: int) -> float:
        batch = [(RecordKind.TELEMETRY, msgspec.Raw(_BODY))] * TOGETHER
        begun = time.perf_counter()
        left = records
        while left or self._outbox.depth():
            for _ in range(min(5, left // TOGETHER)):
                left -= len(self._outbox.extend(batch))
            self._link.turn(0.0005)
        return records / (time.perf_counter() - begun)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._link.close()
        self._outbox.close()
        self._process.terminate()
        self._process.wait()


class _Bare:
    """The bare pipe: a publisher in this process, a consumer in another."""

    def __init__(self, path: Path, broker: int) -> None:
        self._committed: queue.Queue[int] = queue.Queue()
        self._seq = 0
        self._client = client_of("publisher", broker)
        self._client.on_message = lambda _client, _data, message: self._committed.put(
            json.loads(message.payload)
        )
        self._client.on_subscribe = lambda *_: self._committed.put(0)
        self._client.subscribe([(_DONE, 1)])
        self._committed.get(timeout=PATIENCE_S)
        self._consumer = _started("-m", "benchmarks.sync_telemetry", str(path), str(broker))
        self._committed.get(timeout=PATIENCE_S)

    def send(self, records: int, together: int) -> float:
        begun = time.perf_counter()
        self._publish(records, together)
        self._wait(records)
        return records / (time.perf_counter() - begun)

    def _publish(self, records: int, together: int) -> None:
        left = records
        while left:
            number = min(left, together)
            left -= number
            batch = Batch(
                device=DEVICE,
                stream="bare",
                boot_id="boot",
                records=tuple(
                    Record(
                        seq=self._seq + 1 + index,
                        kind=RecordKind.TELEMETRY,
                        at=time.time(),
                        monotonic=time.monotonic(),
                        body=msgspec.Raw(_BODY),
                    )
                    for index in range(number)
                ),
            )
            self._seq += number
            self._client.publish(_TOPIC, encode(batch), qos=1)

    def _wait(self, records: int) -> None:
        while records:
            records -= self._committed.get(timeout=PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._consumer.terminate()
        self._consumer.wait()


def _consume(path: Path, broker: int) -> None:
    """The bare pipe's other end, in a process of its own."""
    waiting: queue.Queue[bytes] = queue.Queue()
    client = client_of("consumer", broker)

    def take(_client: Client, _data: Any, message: MQTTMessage) -> None:
        waiting.put(bytes(message.payload))

    client.on_message = take

    def ready(*_: Any) -> None:
        client.publish(_DONE, "0", qos=1)

    client.on_subscribe = ready
    client.subscribe([(_TOPIC, 1)])
    database: sqlite3.Connection = bare_database(path)
    while True:
        group = [waiting.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                group.append(waiting.get_nowait())
        client.publish(_DONE, json.dumps(write_bare(database, group)), qos=1)


def client_of(name: str, broker: int) -> Client:
    """A paho client of a broker here, connected, that queues without bound."""
    client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTv5)
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(100)
    client.connect("127.0.0.1", broker)
    client.loop_start()
    while not client.is_connected():
        time.sleep(0.01)
    return client


def _no_releases(_root: bytes) -> ReleaseTrust:
    raise RemoteError("This device has no releases.")


def _hello(stream: str) -> Hello:
    return Hello(
        device=DEVICE,
        agent_version="0",
        boot_id="boot",
        stream=stream,
        capabilities=Capabilities(),
        reported=ReportedState(),
    )


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """Mosquitto on loopback, anonymous; gives its port."""
    port = _free_port()
    folder.mkdir()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"user {getpass.getuser()}\nlistener {port} 127.0.0.1\nallow_anonymous true\n"
        "max_inflight_messages 100\nmax_queued_messages 0\n"
    )
    process = subprocess.Popen(
        ["mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _when(lambda: socket.create_connection(("127.0.0.1", port)).close())
        yield port
    finally:
        process.terminate()
        process.wait()


def _started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _when_up(folder: Path, url: str) -> FleetClient:
    def up() -> FleetClient:
        client = FleetClient(url, (folder / "operator.token").read_text().strip())
        client.health()
        return client

    return _when(up)


def _when(ready: Callable[[], T]) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ready()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    _consume(Path(sys.argv[1]), int(sys.argv[2]))
