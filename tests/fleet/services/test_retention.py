from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from cloud_sync.messages import DesiredModel, RecordKind
from fleet.db import tables
from fleet.services import Services, records, retention, security
from fleet.services.retention import DAY_S, Retention


@pytest.fixture
def store(
    services: Services, tmp_path: Path, enroll: Callable[..., Any]
) -> Callable[[RecordKind, Any], Any]:
    device = enroll(services, tmp_path, "cam-1")

    def keep(kind: RecordKind, body: Any) -> Any:
        """Store one record; returns its batch."""
        device.outbox.append(kind, body)
        batch = device.outbox.batch()
        for ack in records.store(services, [records.SignedBatch(batch, b"proof")]):
            device.outbox.acknowledge(device.open_ack(ack))
        return batch

    return keep


def count(services: Services, table: type[tables.Table]) -> int:
    with services.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_old_records_go_and_what_is_new_stays(
    services: Services, store: Callable[..., Any], window: Callable[..., Any], clock: Any
) -> None:
    store(RecordKind.TELEMETRY, window(1))
    clock.now += 29 * DAY_S
    store(RecordKind.TELEMETRY, window(2))
    keep = Retention(minute_days=1000, device_days=1000)
    assert retention.forget(services, keep) == 0
    clock.now += 2 * DAY_S
    assert retention.forget(services, keep) == 1
    assert [w["window"]["inferred"] for w in records.telemetry(services)["items"]] == [2]


def test_a_record_that_was_forgotten_is_known_when_it_comes_again(
    services: Services, store: Callable[..., Any], window: Callable[..., Any], clock: Any
) -> None:
    batch = store(RecordKind.TELEMETRY, window(1))
    clock.now += 31 * DAY_S
    retention.forget(services, Retention())
    (ack,) = records.store(services, [records.SignedBatch(batch, b"proof")])
    assert ack
    assert count(services, tables.Record) == 0
    assert services.counters.all()["ingest.duplicates"] == 1


def test_of_too_much_the_oldest_goes(
    services: Services, store: Callable[..., Any], window: Callable[..., Any]
) -> None:
    store(RecordKind.TELEMETRY, window(1))
    with services.database.write() as session:
        first = session.scalars(select(tables.Record)).one()
        fields = {c.name: getattr(first, c.name) for c in tables.Record.__table__.columns}
        session.add_all(
            tables.Record(**fields | {"id": None, "seq": number}) for number in range(2, 1301)
        )
    size = len(msgspec.json.encode(window(1))) + 400
    retention.forget(services, Retention(records_bytes=100 * size))
    with services.database.read() as session:
        left = list(session.scalars(select(tables.Record.seq).order_by(tables.Record.seq)))
    assert left == list(range(1201, 1301))


def test_proofs_and_events_are_kept_longer_and_what_a_rollout_needs_as_long_as_it_is_open(
    services: Services,
    store: Callable[..., Any],
    evidence: Callable[..., Any],
    wanted: DesiredModel,
    clock: Any,
) -> None:
    store(RecordKind.EVIDENCE, evidence("cam-1", wanted))
    security.record(services, "forged-batch", "cam-1", "a test")
    clock.now += 100 * DAY_S
    retention.forget(services, Retention())
    kept = (tables.Evidence, tables.SignedBatch, tables.SecurityEvent)
    assert [count(services, table) for table in kept] == [1, 1, 1]
    release = tables.Release(
        digest="sha256:1", model="m", version="1", created_at=0, created_by="x", document="{}"
    )
    rollout = tables.Rollout(
        id="r", model="m", release="sha256:1", policy="{}", status="running", state="{}",
        decision="{}", created_at=0, created_by="x", finished_at=None,
    )  # fmt: skip
    with services.database.write() as session:
        session.add(release)
        session.flush()
        session.add(rollout)
        session.scalars(select(tables.Evidence)).one().rollout = "r"
    clock.now += 300 * DAY_S
    retention.forget(services, Retention())
    assert [count(services, table) for table in kept] == [1, 1, 0]
    with services.database.write() as session:
        session.get_one(tables.Rollout, "r").status = "completed"
    retention.forget(services, Retention())
    assert [count(services, table) for table in kept] == [0, 0, 0]
