"""Fleet ingest in records a second, beside a bare paho consumer that writes the same rows.

Both take the same telemetry batches of the same devices from Mosquitto, which holds them when the
clock starts, and both end when the last record is committed: into tables of the same columns and
indices, with the same durability, many messages a transaction. The bare consumer decodes each
window (it needs the model and the release), inserts, and is done. The fleet bounds what it holds,
verifies each message's signature, knows a record again that comes twice, and signs and publishes
the acknowledgements of what it stored. On PostgreSQL both use COPY.

A message has as many records as a device with three sources sends at once; in the `backlog` rows
as many as a device that was away: there one signature stands for many. Beside the time from the
broker to the commit stands `ingest.store_*`: the same without broker and acknowledgements.
"""

import contextlib
import datetime as dt
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec

from benchmarks.fleet_bare import bare_store
from benchmarks.fleet_servers import (
    PATIENCE_S,
    client_of,
    forgotten,
    held,
    mosquitto,
    postgresql,
    until_ready,
)
from benchmarks.measure import Row, interleave, main, quartiles, ratio_row, versions
from benchmarks.sync_outbox import window
from cloud_sync.messages import (
    Batch,
    EnrollRequest,
    Record,
    RecordKind,
    Up,
    encode,
    topic,
)
from cloud_sync.mqtt_session import MqttSession
from cloud_sync.trust import PayloadType, PrivateKey, generate, key_id, open_envelope, sign
from cloud_sync.trust.identity import make_request
from edgeml.errors import RemoteError
from fleet.db import Database, upgrade
from fleet.db.database import sqlite_url
from fleet.incarnation import HeadFile
from fleet.ingest import MAX_TOGETHER, RECEIVE_MAXIMUM, Ingest, subscriptions
from fleet.keys import load_or_create
from fleet.registry import Registry
from fleet.services import Caller, Services, enrollment
from fleet.trust import Repository

DEVICES = 100
RECORDS = 3
BACKLOG_RECORDS = 150
GOAL = 0.7
_BARE = "bare/records"


def rows(quick: bool) -> Iterator[Row]:
    """Measure ingest on SQLite and PostgreSQL: messages as they come, and a backlog."""
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name) / "broker") as broker:
        folder = Path(name)
        with _Site(folder / "sqlite", sqlite_url(folder / "sqlite.db"), broker) as site:
            yield from _of(site, "ingest.sqlite_vs_bare", RECORDS, quick)
            yield from _of(site, "ingest.backlog_vs_bare", BACKLOG_RECORDS, quick)
            yield from _stored(site, quick)
            yield _signatures(site)
        with postgresql() as url, _Site(folder / "postgresql", url, broker) as site:
            yield from _of(site, "ingest.postgresql_vs_bare", RECORDS, quick)
            yield from _of(site, "ingest.postgresql_backlog_vs_bare", BACKLOG_RECORDS, quick)


def _of(site: "_Site", metric: str, records: int, quick: bool) -> Iterator[Row]:
    messages = (9000 if quick else 30_000) // max(RECORDS, records)
    measured = interleave(
        lambda: site.from_broker(messages, records, bare=False),
        lambda: site.from_broker(messages, records, bare=True),
        7 if quick else 11,
    )
    yield ratio_row(
        metric,
        measured,
        unit="records/s",
        peer=f"bare consumer, {records} records a message",
        goal=f"at least {GOAL} x",
        at_least=GOAL,
    )


def _stored(site: "_Site", quick: bool) -> Iterator[Row]:
    messages = 1000 if quick else 4000
    yield ratio_row(
        "ingest.store_vs_insert",
        interleave(
            lambda: site.stored(messages, RECORDS), lambda: site.inserted(messages, RECORDS), 7
        ),
        unit="records/s",
        peer=f"decode and insert, {RECORDS} records a message, no broker",
    )


def _signatures(site: "_Site") -> Row:
    spent = [1e6 * site.verified(500, RECORDS) for _ in range(7)]
    return Row(
        metric="ingest.signature_us",
        value=statistics.median(spent),
        unit="us a message, of one core, by OpenSSL",
        spread=quartiles(spent),
        n=len(spent),
    )


class _Site:
    """A fleet's services with its devices, the bare consumer's database, and a broker."""

    def __init__(self, folder: Path, url: str, broker: int) -> None:
        self._keys = {f"bench-{number}": generate() for number in range(DEVICES)}
        self._services = _services(folder, url, self._keys)
        self._broker = broker
        self._bare = bare_store(url)
        self._streams = 0
        self._ingest = Ingest(self._services)
        self._ingest.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ingest.stop()
        self._services.database.close()
        self._bare.close()

    def from_broker(self, messages: int, records: int, *, bare: bool) -> float:
        """Records a second from when the broker may deliver until the last is committed."""
        batches = self._batches(messages, records)
        if bare:
            waiting, filters = [(_BARE, data) for _, data in batches], [_BARE]
        else:
            waiting = [(topic(d, Up.TELEMETRY), data) for d, data in self._signed(batches)]
            filters = subscriptions()
        name = f"consumer-{self._streams}"
        held(self._broker, name, filters, waiting)
        begun = time.perf_counter()
        with self._bare_takes(name) if bare else self._fleet_takes(name) as stored:
            self._stored_all(stored, messages * records)
            took = time.perf_counter() - begun
        forgotten(self._broker, name)
        return messages * records / took

    def stored(self, messages: int, records: int) -> float:
        """Records a second through the ingest's queue, without a broker."""
        waiting = self._signed(self._batches(messages, records))
        before = self._records()
        begun = time.perf_counter()
        for device, envelope in waiting:
            self._ingest.on_message(topic(device, Up.TELEMETRY), envelope)
        self._stored_all(lambda: self._records() - before, messages * records)
        return messages * records / (time.perf_counter() - begun)

    def inserted(self, messages: int, records: int) -> float:
        """Records a second decoded and inserted, without a broker."""
        waiting = [data for _, data in self._batches(messages, records)]
        begun = time.perf_counter()
        for at in range(0, len(waiting), MAX_TOGETHER):
            self._bare.write(waiting[at : at + MAX_TOGETHER])
        return messages * records / (time.perf_counter() - begun)

    def _stored_all(self, stored: Callable[[], int], wanted: int) -> None:
        try:
            until_ready(lambda: stored() >= wanted)
        except TimeoutError:
            counted = {n: c for n, c in self._services.counters.all().items() if "ingest" in n}
            raise RemoteError(
                f"{stored()} of {wanted} records were stored in {PATIENCE_S:g} s.",
                why=f"The fleet counted {counted}, and {self._ingest.waiting} messages wait.",
                fix="Read what ingest logged above.",
            ) from None

    def verified(self, messages: int, records: int) -> float:
        """Seconds that verifying a message takes on one core."""
        waiting = self._signed(self._batches(messages, records))
        keys = {
            device: {key_id(k.public_key()): k.public_key()} for device, k in self._keys.items()
        }
        begun = time.perf_counter()
        for device, envelope in waiting:
            open_envelope(envelope, keys[device], PayloadType.BATCH)
        return (time.perf_counter() - begun) / messages

    @contextlib.contextmanager
    def _fleet_takes(self, name: str) -> Iterator[Callable[[], int]]:
        bus = MqttSession(
            f"mqtt://127.0.0.1:{self._broker}",
            name,
            on_delivery=self._ingest.on_delivery,
            receive_maximum=RECEIVE_MAXIMUM,
            subscriptions=subscriptions(),
        )
        before = self._records()
        bus.start()
        self._services.publisher.attach(bus)
        try:
            yield lambda: self._records() - before
        finally:
            self._services.publisher.attach(None)
            bus.close()

    def _records(self) -> int:
        return self._services.counters.all().get("ingest.records", 0)

    @contextlib.contextmanager
    def _bare_takes(self, name: str) -> Iterator[Callable[[], int]]:
        waiting: queue.Queue[bytes | None] = queue.Queue()
        committed = [0]
        client = client_of(name, self._broker, lambda message: waiting.put(bytes(message.payload)))

        def write() -> None:
            while (first := waiting.get()) is not None:
                group = [first]
                with contextlib.suppress(queue.Empty):
                    while len(group) < MAX_TOGETHER and (more := waiting.get_nowait()):
                        group.append(more)
                committed[0] += self._bare.write(group)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield lambda: committed[0]
        finally:
            waiting.put(None)
            writer.join()
            client.disconnect()
            client.loop_stop()

    def _signed(self, batches: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        return [
            (device, sign(data, PayloadType.BATCH, self._keys[device])) for device, data in batches
        ]

    def _batches(self, messages: int, records: int) -> list[tuple[str, bytes]]:
        self._streams += 1
        stream = f"stream-{self._streams}"
        return [
            (
                f"bench-{at % DEVICES}",
                _batch(f"bench-{at % DEVICES}", stream, at // DEVICES, records),
            )
            for at in range(messages)
        ]


def _services(folder: Path, url: str, devices: dict[str, PrivateKey]) -> Services:
    keys = load_or_create(folder, dt.datetime.now(dt.UTC))
    database = Database(url)
    upgrade(database)
    services = Services(
        database=database,
        keys=keys,
        registry=Registry(folder / "registry"),
        head=HeadFile(folder / "keys" / "head.json"),
        trust=Repository(folder / "trust", time.time),
    )
    for device, key in devices.items():
        token = enrollment.create_token(services, Caller("benchmark"), device, {})["token"]
        enrollment.enroll(services, EnrollRequest(token=token, csr=make_request(device, key)))
    return services


def _batch(device: str, stream: str, at: int, records: int) -> bytes:
    body = msgspec.Raw(msgspec.json.encode(window()))
    batch = Batch(
        device=device,
        stream=stream,
        boot_id="boot",
        records=tuple(
            Record(
                seq=at * records + i + 1,
                kind=RecordKind.TELEMETRY,
                at=time.time(),
                monotonic=1.0,
                body=body,
            )
            for i in range(records)
        ),
    )
    return encode(batch)


if __name__ == "__main__":
    main(
        "fleet_ingest",
        rows,
        description="Fleet ingest in records a second, beside a bare paho consumer.",
        conditions=versions("sqlalchemy", "cryptography", "pynacl", "msgspec", "paho-mqtt")
        | {"messages a transaction": str(MAX_TOGETHER), "devices": str(DEVICES)},
    )
