"""What trust costs: desired states signed a second, and a TUF refresh beside fetching its files.

`desired_state.signed_per_s` counts states that are made, signed and kept by the fleet's own
function, committed 100 at a time, beside signing the same bytes with `cryptography` alone.
`desired_state.published_per_s` counts those that also went over Mosquitto, until a subscriber has
them, beside paho sending such bytes to the same subscriber. The refresh is that of a device with
nothing new to learn, over HTTP on this machine, beside httpx fetching the same file.
"""

import datetime as dt
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Self

import httpx
from tuf.api.metadata import Root

from benchmarks.measure import Row, interleave, main, ratio_row, versions
from benchmarks.sync_telemetry import PATIENCE_S, client_of, mosquitto
from cloud_sync.address import http_client
from cloud_sync.messages import Down, topic
from cloud_sync.mqtt_session import MqttSession
from cloud_sync.trust import generate
from cloud_sync.trust.fetcher import HttpxFetcher
from cloud_sync.trust.keys import public_pem
from cloud_sync.trust.releases import ReleaseTrust
from edgeml.errors import RemoteError
from fleet.db import Database, tables, upgrade
from fleet.db.database import sqlite_url
from fleet.incarnation import HeadFile
from fleet.keys import load_or_create
from fleet.registry import Registry
from fleet.services import Services, desired, recovery, trust
from fleet.services.enrollment import new_device
from fleet.trust import Repository

DEVICES = 100_000
TOGETHER = 100
ROUNDS = 8
BEHIND = 500
TIMEOUT = httpx.Timeout(30.0)


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- http.server's
        """Say nothing."""


def rows(quick: bool) -> Iterator[Row]:
    """Measure; a quick run signs fewer states."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        services = _services(Path(name) / "fleet")
        stack.callback(services.database.close)
        yield _signed(services, 2_000 if quick else DEVICES)
        with mosquitto(Path(name) / "broker") as port, _Reader(port) as reader:
            yield _published(services, port, reader, 2_000 if quick else DEVICES)
        yield _refresh(services, Path(name), stack, 20 if quick else 50)


def _parts(services: Services, number: int, prefix: str) -> list[list[str]]:
    """New devices, in the shares of the rounds, the warm-up with them."""
    names = [f"{prefix}-{at:06}" for at in range(number)]
    _add(services, names)
    share = number // ROUNDS
    return [names[at * share : (at + 1) * share] for at in range(ROUNDS)]


def _signed(services: Services, number: int) -> Row:
    share = number // ROUNDS
    parts = iter(_parts(services, number, "signed"))
    envelope = b""

    def ours() -> float:
        nonlocal envelope
        part = next(parts)
        begun = time.perf_counter()
        for at in range(0, len(part), TOGETHER):
            with services.database.write() as session:
                made = desired.reissue_all(services, session, part[at : at + TOGETHER])
                envelope = next(iter(made.values()))
        return len(part) / (time.perf_counter() - begun)

    def bare() -> float:
        key, data = services.keys.director, envelope
        begun = time.perf_counter()
        for _ in range(share):
            key.sign(data)
        return share / (time.perf_counter() - begun)

    return ratio_row(
        "desired_state.signed_per_s",
        interleave(ours, bare, ROUNDS - 1),
        unit="states/s",
        peer="signing alone",
    )


def _published(services: Services, port: int, reader: "_Reader", number: int) -> Row:
    parts = iter(_parts(services, number, "published"))
    bus = MqttSession(f"mqtt://127.0.0.1:{port}", "fleet", on_message=lambda _topic, _data: None)
    bus.start()
    bus.wait_connected(PATIENCE_S)
    services.publisher.attach(bus)
    publisher = client_of("publisher", port)
    envelope = b""

    def ours() -> float:
        nonlocal envelope
        part = next(parts)
        begun = time.perf_counter()
        for at in range(0, len(part), TOGETHER):
            with services.database.write() as session:
                made = desired.reissue_all(services, session, part[at : at + TOGETHER])
            envelope = next(iter(made.values()))
            reader.wait(at - BEHIND)  # the bus holds no more than a bounded number back
            desired.publish(services, made)
        reader.wait(len(part))
        reader.begin_anew()
        return len(part) / (time.perf_counter() - begun)

    def bare() -> float:
        begun = time.perf_counter()
        for _ in range(number // ROUNDS):
            publisher.publish(topic("bare", Down.DESIRED), envelope, qos=1)
        reader.wait(number // ROUNDS)
        reader.begin_anew()
        return number // ROUNDS / (time.perf_counter() - begun)

    try:
        return ratio_row(
            "desired_state.published_per_s",
            interleave(ours, bare, ROUNDS - 1),
            unit="states/s",
            peer="paho sending as many bytes",
        )
    finally:
        services.publisher.attach(None)
        bus.close()
        publisher.disconnect()
        publisher.loop_stop()


class _Reader:
    """A subscriber to all desired states, which counts what has come."""

    def __init__(self, port: int) -> None:
        self._count = 0
        self._came = Condition()
        self._client = client_of("reader", port)
        ready = Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda *_: self._take()
        self._client.subscribe([(topic("+", Down.DESIRED), 1)])
        ready.wait(PATIENCE_S)

    def wait(self, number: int) -> None:
        """Wait until so many have come since `begin_anew`."""
        with self._came:
            if not self._came.wait_for(lambda: self._count >= number, PATIENCE_S):
                raise RemoteError(f"Of {number} desired states {self._count} came.")

    def begin_anew(self) -> None:
        """Count from nought."""
        with self._came:
            self._count = 0

    def _take(self) -> None:
        with self._came:
            self._count += 1
            self._came.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _refresh(services: Services, folder: Path, stack: ExitStack, times: int) -> Row:
    handler = partial(_Quiet, directory=str(services.trust.store.folder))
    server = stack.enter_context(closing(_Server(("127.0.0.1", 0), handler)))
    url = f"http://127.0.0.1:{server.server_port}"
    client = stack.enter_context(http_client(url, None, TIMEOUT, of="fleet"))
    root = services.trust.store.published(Root.type)
    assert root is not None
    device = ReleaseTrust(folder / "device", root, time.time, HttpxFetcher(client), url)
    asked = f"{url}/metadata/2.root.json", f"{url}/metadata/timestamp.json"

    def ours() -> float:
        begun = time.perf_counter()
        for _ in range(times):
            device.authorities()
        return (time.perf_counter() - begun) / times * 1e3

    def bare() -> float:
        begun = time.perf_counter()
        for _ in range(times):
            for address in asked:
                client.get(address).read()
        return (time.perf_counter() - begun) / times * 1e3

    return ratio_row(
        "trust.refresh_ms", interleave(ours, bare, 7), unit="ms", peer="httpx, the same files"
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: partial[_Quiet]) -> None:
        super().__init__(address, handler)
        Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop and close."""
        self.shutdown()
        self.server_close()


def _services(data: Path) -> Services:
    keys = load_or_create(data, dt.datetime.now(dt.UTC))
    database = Database(sqlite_url(data / "fleet.db"))
    upgrade(database)
    services = Services(
        database=database,
        keys=keys,
        registry=Registry(data / "registry"),
        head=HeadFile(data / "keys" / "head.json"),
        trust=Repository(data / "trust", time.time),
    )
    recovery.check(services)
    trust.begin(services, fresh=True)
    return services


def _add(services: Services, names: list[str]) -> None:
    public = public_pem(generate().public_key())
    with services.database.write() as session:
        for name in names:
            row: tables.Device = new_device(name)
            row.public_key = public
            session.add(row)


if __name__ == "__main__":
    main(
        "sync_trust",
        rows,
        description="Desired states signed a second, and what a TUF refresh costs.",
        conditions=versions("cryptography", "tuf", "sqlalchemy", "httpx"),
    )
