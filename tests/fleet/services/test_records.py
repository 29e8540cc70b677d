import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from cloud_sync.messages import (
    Ack,
    Batch,
    Gap,
    Record,
    RecordKind,
    SecurityKind,
    SecurityRecord,
    encode,
)
from cloud_sync.trust import PayloadType, generate, sign
from edgeml.errors import RemoteError, TrustError
from fleet.db import tables
from fleet.services import Services, records, security


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path)


def batch_of(device: Any, *records_: tuple[int, RecordKind, Any]) -> Batch:
    return Batch(
        device=device.device,
        stream="stream-1",
        boot_id="boot-1",
        records=tuple(
            Record(seq=seq, kind=kind, at=1.0, monotonic=2.0, body=_raw(body))
            for seq, kind, body in records_
        ),
    )


def _raw(body: Any) -> msgspec.Raw:
    return msgspec.Raw(body if isinstance(body, bytes) else msgspec.json.encode(body))


def store(services: Services, device: Any, *batches: Batch) -> list[Ack]:
    signed = [
        records.verify(
            services,
            device.device,
            sign(encode(batch), PayloadType.BATCH, device.key),
            device.key.public_key(),
        )
        for batch in batches
    ]
    return [device.open_ack(envelope) for envelope in records.store(services, signed)]


def stored(services: Services) -> list[int]:
    with services.database.read() as session:
        return list(session.scalars(select(tables.Record.seq).order_by(tables.Record.seq)))


def test_a_gap_in_the_numbers_is_told_as_a_range(
    services: Services, device: Any, window: Any
) -> None:
    first = batch_of(device, (1, RecordKind.TELEMETRY, window()))
    later = batch_of(
        device, (4, RecordKind.TELEMETRY, window()), (5, RecordKind.TELEMETRY, window())
    )
    ack = store(services, device, first, later)[-1]
    assert (ack.through, ack.ranges) == (1, ((4, 5),))
    middle = batch_of(
        device, (2, RecordKind.TELEMETRY, window()), (3, RecordKind.TELEMETRY, window())
    )
    assert store(services, device, middle)[0].through == 5


def test_what_the_device_dropped_itself_is_accounted_for(
    services: Services, device: Any, window: Any
) -> None:
    gap = Gap(first=2, last=8, dropped=7, reason="bytes")
    batch = batch_of(device, (1, RecordKind.TELEMETRY, window()), (9, RecordKind.GAP, gap))
    assert store(services, device, batch)[0].through == 9
    assert stored(services) == [1, 9]


def test_a_gap_that_speaks_of_the_future_accounts_for_nothing(
    services: Services, device: Any
) -> None:
    gap = Gap(first=1, last=100, dropped=100, reason="bytes")
    ack = store(services, device, batch_of(device, (1, RecordKind.GAP, gap)))[0]
    assert (ack.through, ack.ranges) == (1, ())
    assert services.counters.all()["ingest.malformed"] == 1


def test_duplicates_are_stored_once_even_within_a_transaction(
    services: Services, device: Any, window: Any
) -> None:
    batch = batch_of(device, (1, RecordKind.TELEMETRY, window()))
    store(services, device, batch, batch)
    store(services, device, batch)
    assert stored(services) == [1]
    assert services.counters.all()["ingest.duplicates"] == 2


def test_what_is_gone_from_the_table_is_still_known(
    services: Services, device: Any, window: Any
) -> None:
    batch = batch_of(device, (1, RecordKind.TELEMETRY, window()))
    store(services, device, batch)
    with services.database.write() as session:
        session.delete(session.scalars(select(tables.Record)).one())
    assert store(services, device, batch)[0].through == 1
    assert stored(services) == []


def test_streams_are_counted_by_themselves(services: Services, device: Any, window: Any) -> None:
    one = batch_of(device, (1, RecordKind.TELEMETRY, window()))
    other = msgspec.structs.replace(one, stream="stream-2")
    acks = store(services, device, one, other)
    assert [(ack.stream, ack.through) for ack in acks] == [("stream-1", 1), ("stream-2", 1)]
    assert stored(services) == [1, 1]


def test_a_record_that_cannot_be_read_is_kept_counted_and_acknowledged(
    services: Services, device: Any, window: Any
) -> None:
    batch = batch_of(
        device,
        (1, RecordKind.TELEMETRY, b'{"model": 5}'),
        (2, RecordKind.EVIDENCE, b"[]"),
        (3, RecordKind.TELEMETRY, window()),
    )
    assert store(services, device, batch)[0].through == 3
    assert services.counters.all()["ingest.malformed"] == 2
    assert len(records.telemetry(services)["items"]) == 1


def test_evidence_of_another_device_is_no_evidence(
    services: Services, device: Any, evidence: Any, wanted: Any
) -> None:
    batch = batch_of(device, (1, RecordKind.EVIDENCE, evidence("cam-2", wanted)))
    store(services, device, batch)
    with services.database.read() as session:
        assert session.scalar(select(func.count()).select_from(tables.Evidence)) == 0


def test_evidence_is_kept_with_the_envelope_that_proves_it(
    services: Services, device: Any, evidence: Any, wanted: Any
) -> None:
    batch = batch_of(device, (1, RecordKind.EVIDENCE, evidence("cam-1", wanted)))
    store(services, device, batch)
    with services.database.read() as session:
        row = session.scalars(select(tables.Evidence)).one()
        proof = session.get_one(tables.SignedBatch, row.signed_batch)
    again = records.verify(services, "cam-1", proof.envelope, device.key.public_key())
    assert again.batch == batch


def test_what_a_device_refused_becomes_a_security_event(services: Services, device: Any) -> None:
    refused = SecurityRecord(
        kind=SecurityKind.UNTRUSTED_RELEASE, model="digits", release="sha256:6", detail="not signed"
    )
    batch = batch_of(device, (1, RecordKind.SECURITY, refused))
    store(services, device, batch)
    store(services, device, batch)  # comes again
    [event] = security.events(services)["items"]
    assert (event["device"], event["kind"]) == ("cam-1", "untrusted-release")
    assert event["detail"] == "not signed"
    assert services.counters.all()["security.untrusted-release"] == 1


def test_a_device_that_floods_the_fleet_with_refusals_fills_no_disk(
    services: Services, device: Any
) -> None:
    refused = SecurityRecord(
        kind=SecurityKind.UNTRUSTED_RELEASE, model="digits", release="sha256:6", detail="x"
    )
    records_ = [(seq, RecordKind.SECURITY, refused) for seq in range(1, 1201)]
    ack = store(services, device, batch_of(device, *records_[:600]))[0]
    ack = store(services, device, batch_of(device, *records_[600:]))[0]
    assert ack.through == 1200
    with services.database.read() as session:
        kept = session.scalar(select(func.count()).select_from(tables.SecurityEvent))
    assert kept == 1000
    assert services.counters.all()["security.untrusted-release"] == 1200


def test_another_keys_batch_is_refused_and_kept_as_an_event(
    services: Services, device: Any, window: Any
) -> None:
    batch = batch_of(device, (1, RecordKind.TELEMETRY, window()))
    envelope = sign(encode(batch), PayloadType.BATCH, generate())
    for _ in range(3):
        with pytest.raises(TrustError):
            records.verify(services, "cam-1", envelope, device.key.public_key())
    # Counted each time, kept once: forgeries shall not fill the disk.
    assert len(security.events(services)["items"]) == 1
    assert services.counters.all()["security.forged-batch"] == 3


@pytest.mark.parametrize("seq", [0, -1, 2**63])
def test_numbers_out_of_range_are_refused(
    services: Services, device: Any, window: Any, seq: int
) -> None:
    with pytest.raises(RemoteError, match=r"out of range|could not be read"):
        store(services, device, batch_of(device, (seq, RecordKind.TELEMETRY, window())))
    assert stored(services) == []


def test_a_stream_full_of_holes_is_not_taken(services: Services, device: Any) -> None:
    for begin in range(0, 2 * records.MAX_RANGES + 2, 2000):
        numbers = range(begin + 2, begin + 2002, 2)
        holes = batch_of(device, *((seq, RecordKind.TELEMETRY, b"0") for seq in numbers))
        ack = store(services, device, holes)[0]
    assert len(ack.ranges) <= records.MAX_RANGES
    assert services.counters.all()["ingest.too-many-ranges"] == 1


def test_telemetry_is_found_by_device_and_model_in_pages(
    services: Services, device: Any, window: Any
) -> None:
    batch = batch_of(
        device,
        *(
            (n, RecordKind.TELEMETRY, window(n, "digits" if n % 2 else "faces"))
            for n in range(1, 8)
        ),
    )
    store(services, device, batch)
    page = records.telemetry(services, model="digits", limit=3)
    assert [item["seq"] for item in page["items"]] == [7, 5, 3]
    rest = records.telemetry(services, model="digits", limit=3, after=int(page["next"] or 0))
    assert [item["seq"] for item in rest["items"]] == [1]
    assert rest["next"] is None
    assert records.telemetry(services, device="cam-2")["items"] == []


bodies = st.one_of(
    st.binary(max_size=50),
    st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "state", "phase", "first", "last", "device", "seconds"]),
                inner,
            )
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(RecordKind), bodies), max_size=8))
def test_whatever_a_device_signs_every_number_is_stored_once_and_acknowledged(
    shared_fleet: Any, shared_device: Any, sent: list[tuple[int, RecordKind, bytes]]
) -> None:
    services = shared_fleet.services
    payload = {
        "version": 1,
        "device": "cam-1",
        "stream": f"s{services.counters.all().get('examples', 0)}",
        "boot_id": "b",
        "records": [],
    }
    services.counters.add("examples")
    entries = [
        b'{"seq":%d,"kind":"%b","at":null,"monotonic":1,"body":%b}' % (seq, kind.encode(), body)
        for seq, kind, body in sent
    ]
    data = json.dumps(payload).encode().replace(b"[]", b"[" + b",".join(entries) + b"]")
    envelope = sign(data, PayloadType.BATCH, shared_device.key)
    try:
        signed = records.verify(services, "cam-1", envelope, shared_device.key.public_key())
    except RemoteError:
        return
    ack = shared_device.open_ack(records.store(services, [signed])[0])
    with services.database.read() as session:
        found = list(
            session.scalars(
                select(tables.Record.seq).where(tables.Record.stream == payload["stream"])
            )
        )
    assert sorted(found) == sorted({seq for seq, _, _ in sent})
    covered = set(range(1, ack.through + 1))
    for low, high in ack.ranges:
        covered |= set(range(low, high + 1))
    assert covered >= set(found)


@pytest.mark.parametrize(
    "extra",
    [
        b'"x":' + b"[" * 400 + b"]" * 400,
        b'"x":' + b"9" * 5000,
        b'"x":"\\ud83d\\ude00"',
        b'"x":1e300',
    ],
)
def test_what_no_reader_could_take_is_not_kept(
    services: Services, device: Any, window: Callable[..., Any], extra: bytes
) -> None:
    body = b"{" + extra + b"," + msgspec.json.encode(window(3))[1:]
    store(services, device, batch_of(device, (1, RecordKind.TELEMETRY, body)))
    (found,) = records.telemetry(services)["items"]
    assert found["window"] == msgspec.to_builtins(window(3))


def test_an_empty_batch_is_a_question_for_the_time(services: Services, device: Any) -> None:
    begun = services.now()
    [ack] = store(services, device, batch_of(device))
    assert ack.through == 0
    assert begun <= ack.at <= services.now()
