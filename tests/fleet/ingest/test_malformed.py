"""Anything on any topic: counted, sampled, never fatal."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_sync.messages import Batch, RecordKind, Up, encode, topic
from cloud_sync.trust import PayloadType, key_id, sign
from fleet.ingest import Ingest
from fleet.ingest.samples import KIND
from fleet.services import Services, records, security

COUNTED = ("ingest.malformed", "ingest.refused", "ingest.batches", "hello", "hello.late")


@pytest.fixture
def ingest(services: Services) -> Iterator[Ingest]:
    made = Ingest(services)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path)


names = st.sampled_from(["cam-1", "nobody", "x" * 300, "caf\u00e9", "a\u0000b"])
topics = st.builds(lambda name, kind: topic(name, kind), names, st.sampled_from(Up)) | st.text(
    max_size=30
)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["version", "device", "stream", "boot_id", "records", "online", "seq", "payload"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
).map(lambda value: msgspec.json.encode(value))
payloads = st.binary(max_size=200) | json
kinds = st.sampled_from([PayloadType.BATCH, PayloadType.HELLO, PayloadType.ACK])


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(topics, payloads, st.none() | kinds), min_size=1, max_size=40))
def test_whatever_comes_on_whatever_topic_the_next_batch_is_stored(
    services: Services,
    ingest: Ingest,
    device: Any,
    window: Any,
    sent: list[tuple[str, bytes, PayloadType | None]],
) -> None:
    acknowledged: list[str] = []
    for name, payload, kind in sent:
        data = sign(payload, kind, device.key) if kind else payload
        ingest.on_delivery(name, data, partial(acknowledged.append, name))
    device.outbox.append(RecordKind.TELEMETRY, window(7))
    good = sign(encode(device.outbox.batch()), PayloadType.BATCH, device.key)
    ack = device.open_ack(ingest.send("cam-1", good))
    assert device.outbox.acknowledge(ack) == 1
    assert sorted(acknowledged) == sorted(name for name, _, _ in sent)
    assert "ingest.faults" not in services.counters.all()


def test_of_many_messages_that_cannot_be_read_all_are_counted_and_one_is_kept(
    services: Services, ingest: Ingest, device: Any
) -> None:
    noise = sign(b'{"no": "batch"}', PayloadType.BATCH, device.key)
    for _ in range(20):
        ingest.on_message(topic("cam-1", Up.TELEMETRY), noise)
    ingest.stop()
    counted = services.counters.all()
    assert (counted["ingest.malformed"], counted["ingest.refused"]) == (20, 20)
    [event] = security.events(services)["items"]
    assert (event["kind"], event["device"]) == (KIND, "cam-1")
    assert "up/telemetry" in event["detail"]
    assert "payloadType" in event["detail"]


def test_a_batch_is_opened_alike_here_and_in_a_process_of_its_own(
    services: Services, device: Any, window: Any
) -> None:
    from fleet.opening import Asked, Openers, opened
    from fleet.opening.pool import MANY

    public = device.key.public_key()
    key, raw = key_id(public), public.public_bytes_raw()
    told = []
    for number in range(MANY):
        device.outbox.append(RecordKind.TELEMETRY, window(number))
        batch = device.outbox.batch()
        envelope = sign(encode(batch), PayloadType.BATCH, device.key)
        bad = number % 4
        envelope = envelope[:-9] + b"x" * 9 if bad == 1 else b"junk" if bad == 2 else envelope
        told.append(Asked("cam-1" if bad != 3 else "cam-2", key, raw, envelope))
    pool = Openers(processes=2)
    try:
        there = pool.open(told)
        pool._workers[0]._process.kill()  # as the kernel does that is short of memory
        after = pool.open(told)
        again = pool.open(told)
    finally:
        pool.close()
    here = [opened(one) for one in told]
    assert there == after == again == here
    assert [batch is not None for batch in here] == [n % 4 == 0 for n in range(MANY)]
    signed = records.verify(services, "cam-1", told[0].envelope, device.key.public_key())
    assert here[0]
    assert (here[0].device, here[0].stream) == (signed.batch.device, signed.batch.stream)
    assert isinstance(signed.batch, Batch)
