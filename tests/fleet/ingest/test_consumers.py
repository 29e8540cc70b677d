"""Consumers side by side, as processes on one database and one broker, one of them killed."""

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from cloud_sync.messages import Ack, Batch, Down, Record, RecordKind, Up, encode, topic
from cloud_sync.mqtt_session import MqttSession
from cloud_sync.trust import PayloadType, sign
from fleet.db import tables
from fleet.services import Services, rollups
from tests.e2e.loop import until
from tests.sim.mosquitto import Mosquitto

DEVICES, MESSAGES, RECORDS = 4, 30, 3
LAST = MESSAGES * RECORDS


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path_factory.mktemp("broker"))
    yield made
    made.stop()


@contextmanager
def consumer(services: Services, port: int, name: str) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [str(services.keys.folder.parent), services.database.url, str(port), name]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("consumer.py")), *arguments],
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"


class Senders:
    """Devices that send again what is not acknowledged, and check each ack when it comes."""

    def __init__(self, services: Services, devices: list[Any], port: int, window: Any) -> None:
        self._services = services
        self._devices = {device.device: device for device in devices}
        self._window = window
        self._lock = threading.Lock()
        self._through = dict.fromkeys(self._devices, 0)
        self.untrue: list[Ack] = []
        self._bus = MqttSession(
            f"mqtt://127.0.0.1:{port}",
            "senders",
            on_message=self._acknowledged,
            subscriptions=[topic("+", Down.ACK)],
        )
        self._bus.start()
        assert self._bus.wait_connected(60)

    @property
    def done(self) -> bool:
        with self._lock:
            return all(through >= LAST for through in self._through.values())

    def done_or_sent_again(self) -> bool:
        """Whether all is acknowledged; what is not is sent again."""
        if not self.done:
            self.send()
        return self.done

    def send(self) -> None:
        """Send all that is not acknowledged, in any order, some of it twice."""
        with self._lock:
            left = [
                (device, at)
                for device, through in self._through.items()
                for at in range(through // RECORDS, MESSAGES)
            ]
        chosen = left + random.sample(left, len(left) // 2)
        random.shuffle(chosen)
        for device, at in chosen:
            self._bus.publish(topic(device, Up.TELEMETRY), self._message(device, at))

    def close(self) -> None:
        self._bus.close()

    def _message(self, device: str, at: int) -> bytes:
        records = tuple(
            Record(
                seq=at * RECORDS + n,
                kind=RecordKind.TELEMETRY,
                at=1.0,
                monotonic=1.0,
                body=msgspec.Raw(msgspec.json.encode(self._window(at * RECORDS + n))),
            )
            for n in range(1, RECORDS + 1)
        )
        batch = Batch(device=device, stream="s", boot_id="b", records=records)
        return sign(encode(batch), PayloadType.BATCH, self._devices[device].key)

    def _acknowledged(self, name: str, payload: bytes) -> None:
        device = name.split("/")[2]
        ack = self._devices[device].open_ack(payload)
        said = set(range(1, ack.through + 1))
        for first, last in ack.ranges:
            said |= set(range(first, last + 1))
        row = tables.Record
        with self._services.database.read() as session:
            stored = set(session.scalars(select(row.seq).where(row.device == device)))
        with self._lock:
            if not said <= stored:
                self.untrue.append(ack)
            self._through[device] = max(self._through[device], ack.through)


def test_consumers_side_by_side_store_each_record_once_though_one_is_killed(
    services: Services,
    tmp_path: Path,
    enroll: Callable[..., Any],
    window: Any,
    broker: Mosquitto,
) -> None:
    devices = [enroll(services, tmp_path, f"cam-{n}") for n in range(DEVICES)]
    row = tables.Record

    def stored() -> list[tuple[str, int]]:
        with services.database.read() as session:
            rows = session.execute(select(row.device, row.seq)).all()
            return [(device, seq) for device, seq in rows]

    with (
        consumer(services, broker.port, "one") as one,
        consumer(services, broker.port, "two") as two,
        consumer(services, broker.port, "three") as three,
    ):
        for process in (one, two, three):
            ready(process)
        senders = Senders(services, devices, broker.port, window)
        try:
            senders.send()
            until("the first records", lambda: len(stored()) > DEVICES * LAST // 10, 60)
            one.kill()  # with what it has taken and not stored; it is sent again
            until("every ack", senders.done_or_sent_again, 120)
        finally:
            senders.close()
        assert two.poll() is None
        assert three.poll() is None
    assert senders.untrue == []
    assert Counter(stored()) == Counter(
        {(f"cam-{n}", seq): 1 for n in range(DEVICES) for seq in range(1, LAST + 1)}
    )
    rollups.fold_all(services)
    with services.database.read() as session:
        windows = session.scalars(select(tables.RollUp.windows).where(tables.RollUp.step == 60))
        assert sum(windows) == DEVICES * LAST
