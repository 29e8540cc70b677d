"""A database that does not follow: what waits is bounded, the broker holds the rest."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from cloud_sync.messages import RecordKind, Up, encode, topic
from cloud_sync.mqtt_session import MqttSession
from cloud_sync.trust import PayloadType, sign
from fleet import broker
from fleet.db import tables
from fleet.ingest import Ingest, subscriptions
from fleet.services import Services
from tests.e2e.loop import until

WINDOW = 20
MESSAGES = 100


class _Anybody:
    def check(self, _username: str, _password: str) -> bool:
        return True


@pytest.fixture
def port() -> Iterator[int]:
    """An embedded broker's port."""
    up, stop = threading.Event(), threading.Event()
    found: list[int] = []

    async def serve() -> None:
        running = await broker.start("127.0.0.1", 0, _Anybody())
        found.append(int(running.url.rpartition(":")[2]))
        up.set()
        await asyncio.to_thread(stop.wait)
        await running.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(60)
    yield found[0]
    stop.set()
    thread.join()


def session(port: int, username: str, **more: Any) -> MqttSession:
    made = MqttSession(
        f"mqtt://127.0.0.1:{port}", username, username=username, password="x", **more
    )
    made.start()
    assert made.wait_connected(60)
    return made


@pytest.mark.sqlite
def test_while_the_database_is_locked_the_broker_holds_what_is_sent(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], window: Any, port: int
) -> None:
    device = enroll(services, tmp_path)
    # Another process writes, and does not come to an end.
    blocker = sqlite3.connect(
        services.database.url.removeprefix("sqlite:///"), isolation_level=None
    )
    blocker.execute("BEGIN IMMEDIATE")
    ingest = Ingest(services)
    given: list[str] = []

    def delivered(name: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        given.append(name)
        ingest.on_delivery(name, payload, acknowledge)

    ingest.start()
    fleet = session(
        port,
        broker.SUPERUSER,
        on_delivery=delivered,
        receive_maximum=WINDOW,
        subscriptions=subscriptions(shared=True),
    )
    sender = session(port, "cam-1")
    try:
        for _ in range(MESSAGES):
            device.outbox.append(RecordKind.TELEMETRY, window())
            payload = sign(encode(device.outbox.batch()), PayloadType.BATCH, device.key)
            assert sender.publish(topic("cam-1", Up.TELEMETRY), payload)
        until("the window to be full", lambda: len(given) == WINDOW, 60)
        assert ingest.waiting <= WINDOW
        assert services.counters.all().get("ingest.records", 0) == 0
        assert len(given) == WINDOW  # no more came, however much there is
        blocker.execute("ROLLBACK")
        blocker.close()
        until("all records", lambda: _stored(services) == MESSAGES, 60)
        assert "ingest.dropped" not in services.counters.all()
    finally:
        blocker.close()
        sender.close()
        fleet.close()
        ingest.stop()


def _stored(services: Services) -> int:
    with services.database.read() as reading:
        return reading.scalar(select(func.count()).select_from(tables.Record)) or 0
