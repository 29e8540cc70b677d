"""What trust costs: desired states signed a second, and a TUF refresh beside fetching its files.

`desired_state.signed_per_s` counts states that are made, signed and kept by the fleet's own
function, committed 100 at a time, beside signing the same bytes with `cryptography` alone. The
refresh is that of a device with nothing new to learn, over HTTP on this machine, beside httpx
fetching the same file.
"""

import datetime as dt
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
from tuf.api.metadata import Root

from benchmarks.measure import Row, interleave, main, ratio_row, versions
from cloud_sync.address import http_client
from cloud_sync.trust import generate
from cloud_sync.trust.fetcher import HttpxFetcher
from cloud_sync.trust.keys import public_pem
from cloud_sync.trust.releases import ReleaseTrust
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
        yield _refresh(services, Path(name), stack, 20 if quick else 50)


def _signed(services: Services, number: int) -> Row:
    names = [f"device-{at:06}" for at in range(number)]
    _add(services, names)
    rounds = 8
    share = number // rounds
    parts = iter([names[at * share : (at + 1) * share] for at in range(rounds)])
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
        interleave(ours, bare, rounds - 1),
        unit="states/s",
        peer="signing alone",
    )


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
