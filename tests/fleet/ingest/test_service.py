import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from cloud_sync.messages import Batch, Down, Presence, RecordKind, Up, encode, topic
from cloud_sync.trust import PayloadType, generate, key_id, sign
from edgeml.errors import RemoteError, TrustError
from fleet.db.bulk import insert_rows
from fleet.ingest import (
    MAX_WAITING_BYTES,
    Address,
    Ingest,
    Message,
    parse_topic,
    subscriptions,
    writer,
)
from fleet.ingest.keys import Key
from fleet.services import Services, devices, records, security


class Bus:
    """A bus whose messages a test can look at."""

    def __init__(self) -> None:
        self.connected = True
        self.sent: list[tuple[str, bytes]] = []
        self.arrived = threading.Condition()

    def publish(
        self, name: str, payload: bytes, *, expires_s: float | None = None, patient: bool = False
    ) -> bool:
        with self.arrived:
            self.sent.append((name, payload))
            self.arrived.notify_all()
        return True

    def wait(self, number: int) -> list[tuple[str, bytes]]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.sent) >= number, 10)
        return self.sent


@pytest.fixture
def bus(services: Services) -> Bus:
    made = Bus()
    services.publisher.attach(made)
    return made


@pytest.fixture
def ingest(services: Services) -> Iterator[Ingest]:
    made = Ingest(services)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path)


def signed(device: Any, batch: Any) -> bytes:
    return sign(encode(batch), PayloadType.BATCH, device.key)


def test_a_batch_on_the_bus_is_stored_and_acknowledged(
    services: Services, ingest: Ingest, bus: Bus, device: Any, window: Any
) -> None:
    device.outbox.append(RecordKind.TELEMETRY, window(7))
    ingest.on_message(topic("cam-1", Up.TELEMETRY), signed(device, device.outbox.batch()))
    name, payload = bus.wait(1)[0]
    assert name == topic("cam-1", Down.ACK)
    assert device.outbox.acknowledge(device.open_ack(payload)) == 1
    assert records.telemetry(services)["items"][0]["window"]["inferred"] == 7


def test_a_hello_on_the_bus_is_answered_with_the_desired_state(
    services: Services, ingest: Ingest, bus: Bus, device: Any, operator: Any
) -> None:
    devices.configure(services, operator, "cam-1", {"telemetry_every_s": 3.0})
    bus.wait(1)
    hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
    ingest.on_message(topic("cam-1", Up.HELLO), hello)
    (_, first), (name, again) = bus.wait(2)
    assert name == topic("cam-1", Down.DESIRED)
    assert device.take(again) == device.take(first)


def test_presence_says_who_is_there(
    services: Services, ingest: Ingest, bus: Bus, device: Any
) -> None:
    ingest.on_message(topic("cam-1", Up.PRESENCE), encode(Presence(online=False)))
    ingest.stop()
    assert not devices.show(services, "cam-1")["online"]


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("edgeml/v1/cam-1/up/telemetry", b"not json"),
        ("edgeml/v1/cam-1/up/hello", b"\xff"),
        ("edgeml/v1/cam-1/up/presence", b"[]"),
        ("edgeml/v1/nobody/up/state", b"{}"),
        ("edgeml/v1/nobody/up/hello", b"{}"),
        ("another/topic", b""),
    ],
)
def test_what_cannot_be_read_is_counted_and_the_next_is_stored(
    services: Services,
    ingest: Ingest,
    bus: Bus,
    device: Any,
    window: Any,
    name: str,
    payload: bytes,
) -> None:
    ingest.on_message(name, payload)
    device.outbox.append(RecordKind.TELEMETRY, window())
    ingest.on_message(topic("cam-1", Up.TELEMETRY), signed(device, device.outbox.batch()))
    bus.wait(1)
    counted = services.counters.all()
    assert counted.get("ingest.refused", 0) + counted.get("ingest.malformed", 0) >= 1
    assert "ingest.faults" not in counted


def test_an_acknowledgement_that_fails_is_counted_and_the_next_batch_is_stored(
    services: Services, ingest: Ingest, bus: Bus, device: Any, window: Any
) -> None:
    def fail() -> None:
        raise ConnectionResetError

    for number, acknowledge in enumerate((fail, lambda: None), start=1):
        device.outbox.append(RecordKind.TELEMETRY, window(number))
        envelope = signed(device, device.outbox.batch())
        ingest.on_delivery(topic("cam-1", Up.TELEMETRY), envelope, acknowledge)
        bus.wait(number)
    assert len(records.telemetry(services)["items"]) == 2
    assert services.counters.all()["ingest.faults"] == 1


def test_a_message_of_another_version_is_refused_counted_and_said_once(
    services: Services,
    bus: Bus,
    ingest: Ingest,
    device: Any,
    window: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    device.outbox.append(RecordKind.TELEMETRY, window())
    batch = device.outbox.batch((RecordKind.TELEMETRY,))
    newer = msgspec.structs.replace(batch, version=2)
    hello = msgspec.structs.replace(device.hello(), version=2)
    for _ in range(3):
        ingest.on_message(topic("cam-1", Up.TELEMETRY), signed(device, newer))
    signed_hello = sign(encode(hello), PayloadType.HELLO, device.key)
    ingest.on_message(topic("cam-1", Up.HELLO), signed_hello)
    ingest.on_message(topic("cam-1", Up.TELEMETRY), signed(device, batch))
    bus.wait(1)
    assert services.counters.all()["ingest.unknown-version"] == 4
    said = [r.getMessage() for r in caplog.records if "another version" in r.getMessage()]
    assert len(said) == 1
    assert "version 2 was refused. This edgeml speaks version 1." in said[0]


def test_a_forged_batch_on_the_bus_is_refused(
    services: Services, ingest: Ingest, bus: Bus, device: Any, window: Any
) -> None:
    device.outbox.append(RecordKind.TELEMETRY, window())
    forged = sign(encode(device.outbox.batch()), PayloadType.BATCH, generate())
    ingest.on_message(topic("cam-1", Up.TELEMETRY), forged)
    ingest.stop()
    assert bus.sent == []
    assert records.telemetry(services)["items"] == []
    assert services.counters.all()["security.forged-batch"] == 1


def test_a_batch_under_another_devices_topic_is_refused(
    services: Services,
    ingest: Ingest,
    bus: Bus,
    device: Any,
    window: Any,
    tmp_path: Path,
    enroll: Callable[..., Any],
) -> None:
    enroll(services, tmp_path, "cam-2")
    device.outbox.append(RecordKind.TELEMETRY, window())
    ingest.on_message(topic("cam-2", Up.TELEMETRY), signed(device, device.outbox.batch()))
    ingest.stop()
    assert records.telemetry(services)["items"] == []


def test_a_batch_that_breaks_the_store_does_not_take_others_with_it(
    services: Services, ingest: Ingest, bus: Bus, device: Any, window: Any
) -> None:
    for number in (1, 2):
        device.outbox.append(RecordKind.TELEMETRY, window(number))
    good = device.outbox.batch()
    ghost = msgspec.structs.replace(good, device="ghost")
    # The database refuses it (no such device): as a disk fault in one of many would.
    ingest._handle([_message(good), _message(ghost)])
    assert len(records.telemetry(services)["items"]) == 2
    assert services.counters.all()["ingest.faults"] == 2


def test_a_record_that_the_store_cannot_take_in_is_set_aside_and_blocks_nothing(
    services: Services,
    ingest: Ingest,
    bus: Bus,
    device: Any,
    window: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(1, 8):
        device.outbox.append(RecordKind.TELEMETRY, window(number))

    def faulty(session: Any, table: Any, columns: Any, rows: Any) -> None:
        if any(b'"inferred":3,' in row[-1] and row[3] == RecordKind.TELEMETRY for row in rows):
            raise ZeroDivisionError("a bug of ours")
        insert_rows(session, table, columns, rows)

    monkeypatch.setattr(records, "insert_rows", faulty)
    ingest.on_message(topic("cam-1", Up.TELEMETRY), signed(device, device.outbox.batch()))
    assert device.outbox.acknowledge(device.open_ack(bus.wait(1)[0][1])) == 7
    stored = records.telemetry(services)["items"]
    assert sorted(item["window"]["inferred"] for item in stored) == [1, 2, 4, 5, 6, 7]
    assert services.counters.all()["ingest.set-aside"] == 1
    [event] = security.events(services)["items"]
    assert event["kind"] == "record-set-aside"
    assert "a bug of ours" in event["detail"]


def test_a_fault_of_the_database_sets_nothing_aside(
    services: Services, ingest: Ingest, device: Any, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.outbox.append(RecordKind.TELEMETRY, window(1))
    envelope = signed(device, device.outbox.batch())

    def full(*_: Any) -> Any:
        raise OperationalError("", {}, Exception("disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(records, "insert_rows", full)
        with pytest.raises(RemoteError, match="disk is full"):
            ingest.send("cam-1", envelope)
    assert "ingest.set-aside" not in services.counters.all()
    assert device.outbox.acknowledge(device.open_ack(ingest.send("cam-1", envelope))) == 1


def test_a_kind_of_record_that_a_newer_device_sends_is_kept_as_it_came(
    services: Services, ingest: Ingest, device: Any, window: Any
) -> None:
    for number in (1, 2):
        device.outbox.append(RecordKind.TELEMETRY, window(number))
    batch = device.outbox.batch()
    novel = msgspec.structs.replace(batch.records[0], kind="novel")
    batch = msgspec.structs.replace(batch, records=(novel, batch.records[1]))
    ack = device.open_ack(ingest.send("cam-1", signed(device, batch)))
    assert device.outbox.acknowledge(ack) == 2
    assert [item["seq"] for item in records.telemetry(services)["items"]] == [2]
    assert services.counters.all()["ingest.malformed"] == 1


def _message(batch: Batch) -> Message:
    return Message(batch.device, Up.TELEMETRY, b"", records.SignedBatch(batch, b""))


def test_when_the_database_does_not_follow_messages_are_dropped_and_counted(
    services: Services, device: Any, window: Any
) -> None:
    ingest = Ingest(services, max_waiting=1)
    device.outbox.append(RecordKind.TELEMETRY, window())
    payload = signed(device, device.outbox.batch())
    for _ in range(2):
        ingest.on_message(topic("cam-1", Up.TELEMETRY), payload)
    assert services.counters.all()["ingest.dropped"] == 1


def test_what_waits_is_bounded_in_bytes_too(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.ingest.service.HOLD_BACK_S", 0.0)
    busy = Ingest(services, max_waiting=1000)  # not started: the database does not follow
    payload = bytes(MAX_WAITING_BYTES // 4 + 1)
    for _ in range(6):
        busy.on_message(topic("cam-1", Up.TELEMETRY), payload)
    assert services.counters.all()["ingest.dropped"] == 3


def test_a_revoked_device_is_no_device(services: Services, device: Any, window: Any) -> None:
    from fleet.db import tables

    with services.database.write() as session:
        session.get_one(tables.Device, "cam-1").revoked_at = 1.0
    device.outbox.append(RecordKind.TELEMETRY, window())
    with pytest.raises(TrustError, match="not enrolled"):
        Ingest(services).send("cam-1", signed(device, device.outbox.batch()))


def test_every_topic_that_devices_publish_on_is_subscribed() -> None:
    assert set(subscriptions()) == {f"edgeml/v1/+/{name}" for name in Up}


@given(st.text(max_size=60) | st.from_regex(r"edgeml/v1/[^/]{0,5}/(up|down)/[a-z]{0,9}"))
def test_a_topic_is_read_only_if_it_is_one_of_ours(name: str) -> None:
    address = parse_topic(name)
    if address is not None:
        assert topic(address.device, address.kind) == name
        assert address.device
        assert "/" not in address.device


@given(st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True), st.sampled_from(Up))
def test_every_topic_of_ours_is_read(device: str, kind: Up) -> None:
    assert parse_topic(topic(device, kind)) == Address(device, kind)


def test_a_replaced_device_is_no_forger_and_the_one_before_it_is(
    services: Services,
    ingest: Ingest,
    device: Any,
    tmp_path: Path,
    enroll: Callable[..., Any],
    window: Callable[..., Any],
) -> None:
    def batch(one: Any) -> bytes:
        one.outbox.append(RecordKind.TELEMETRY, window(1))
        return signed(one, one.outbox.batch())

    ingest.send("cam-1", batch(device))  # its key is known now
    folder = tmp_path / "replaced"
    folder.mkdir()
    new = enroll(services, folder, "cam-1")
    ingest.send("cam-1", batch(new))
    assert "security.forged-batch" not in services.counters.all()
    with pytest.raises(TrustError):
        ingest.send("cam-1", batch(device))


def test_a_key_that_another_process_replaced_is_asked_for_before_a_batch_is_refused(
    services: Services, ingest: Ingest, device: Any, window: Callable[..., Any]
) -> None:
    another = generate().public_key()
    ingest._keys._known["cam-1"] = Key(key_id(another), another, another.public_bytes_raw())
    device.outbox.append(RecordKind.TELEMETRY, window(1))
    ingest.send("cam-1", signed(device, device.outbox.batch()))
    assert "security.forged-batch" not in services.counters.all()


def test_while_more_waits_one_acknowledgement_stands_for_several_transactions(
    services: Services, bus: Bus, device: Any, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ACKS_S", 3600.0)
    more = [True]
    made = writer.Writer(services, lambda _: None, threading.Event(), lambda: more[0])

    def store() -> None:
        device.outbox.append(RecordKind.TELEMETRY, window(1))
        batch = device.outbox.batch()
        proven = records.SignedBatch(batch, signed(device, batch))
        made.store([Message(device.device, Up.TELEMETRY, b"", signed=proven)])

    for _ in range(3):  # the first is acknowledged: it is long ago that one was
        store()
    assert [device.open_ack(payload).through for _, payload in bus.sent] == [1]
    more[0] = False
    store()
    assert [device.open_ack(payload).through for _, payload in bus.sent] == [1, 4]


def test_what_is_stored_is_acknowledged_while_the_database_cannot_be_used(
    services: Services, bus: Bus, device: Any, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> Any:
        raise OperationalError("", {}, Exception("the database is gone"))

    stopping = threading.Event()
    made = writer.Writer(services, lambda _: None, stopping, lambda: True)
    monkeypatch.setattr(writer, "ACKS_S", 3600.0)
    made.acknowledge()
    for number in (1, 2):
        device.outbox.append(RecordKind.TELEMETRY, window(number))
        batch = device.outbox.batch()
        proven = records.SignedBatch(batch, signed(device, batch))
        made.store([Message(device.device, Up.TELEMETRY, b"", signed=proven)])
        assert len(bus.sent) == number - 1
        stopping.set()
        monkeypatch.setattr(records, "insert_rows", gone)
    [(_, payload)] = bus.sent
    assert device.open_ack(payload).through == 1
