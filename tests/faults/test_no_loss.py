"""A hundred thousand records through every fault at once: the store holds each exactly once.

The device's link, its outbox, Mosquitto and the fleet are processes of their own, and each is
killed with `kill -9` in turn while the records flow; the links between them are cut. Mosquitto
keeps nothing on the disk: what it has acknowledged is lost with it, as the first fault makes sure.
"""

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.loop import Loop, until
from tests.sim.mosquitto import Mosquitto
from tests.sim.proxy import Proxy
from tests.sim.sender import number_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
DEVICE = "cam-1"
RECORDS = 100_000
MANY = int(os.environ.get("EDGEML_RECORDS", "1_000_000"))
ROUNDS = 2


class Site(Loop):
    """A fleet behind Mosquitto, a sender, and a link that a test can cut before each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.mosquitto = Mosquitto(folder / "broker")
        self.to_broker = Proxy(self.mosquitto.port)
        self.to_fleet = Proxy(self.ports[1])
        self.records = RECORDS

    def start_fleet(self) -> None:
        port, device_port, _ = map(str, self.ports)
        self._start(
            "fleet",
            *("fleet", "up", "--data", str(self.folder / "fleet"), "--port", port),
            *("--device-port", device_port),
            *("--broker", f"mqtt://127.0.0.1:{self.to_broker.port}"),
        )
        until("the fleet", self._answers)

    def enroll_sender(self) -> None:
        token = self.client.enroll(DEVICE, {}, 600)["token"]
        url = f"http://127.0.0.1:{self.to_fleet.port}"
        data = str(self.folder / DEVICE)
        done = self.run(
            *("agent", "enroll", "--device", DEVICE, "--fleet", url),
            *("--token", token, "--data", data),
        )
        assert done.returncode == 0, done.stderr

    def start_sender(self) -> None:
        config, box = self.folder / DEVICE / "agent.toml", self.folder / "outbox.db"
        with (self.folder / "sender.log").open("ab") as log:
            self._children["sender"] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.sim.sender",
                    str(config),
                    str(box),
                    str(self.records),
                ],
                stdout=log,
                stderr=log,
            )

    def sender_ended(self) -> bool:
        status = self._children["sender"].poll()
        assert status in (None, 0), self.log("sender")
        return status == 0

    def stored(self) -> int:
        """How many records the store holds; read beside the fleet, which may be dead."""
        with self.database() as database:
            (count,) = database.execute("SELECT count(*) FROM records").fetchone()
        return int(count)

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / "fleet" / "fleet.db"
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as database:
            yield database

    def kill_sender(self) -> None:
        self.kill("sender")
        self.start_sender()

    def kill_fleet(self) -> None:
        self.kill("fleet")
        self.start_fleet()

    def kill_broker(self) -> None:
        self.mosquitto.kill()
        self.mosquitto.start()

    def kill_fleet_and_what_the_broker_took_for_it(self) -> None:
        self.kill("fleet")
        # A sender that has just begun has nothing on its way yet, whatever the machine does.
        self.kill_sender()
        before = self.to_broker.passed
        until("records that Mosquitto takes", lambda: self.to_broker.passed > before + (256 << 10))
        self.mosquitto.kill()
        self.mosquitto.start()
        self.start_fleet()

    def cut_both_links(self) -> None:
        cut = until("connections", self.to_broker.cut)
        assert cut
        self.to_fleet.cut()

    def close(self) -> None:
        super().close()
        self.to_broker.close()
        self.to_fleet.close()
        self.mosquitto.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    try:
        made.start_fleet()
        made.enroll_sender()
        yield made
    finally:
        made.close()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("records", [RECORDS, pytest.param(MANY, marks=pytest.mark.nightly)])
def test_every_record_is_stored_exactly_once_through_kill_9_of_all_and_cut_links(
    site: Site, records: int
) -> None:
    site.records, patience_s = records, max(240.0, records / 400)
    faults: list[Callable[[], None]] = [
        site.kill_fleet_and_what_the_broker_took_for_it,
        *ROUNDS * [site.kill_sender, site.kill_broker, site.kill_fleet, site.cut_both_links],
    ]
    dice = random.Random(20)
    later = faults[1:]
    dice.shuffle(later)
    site.start_sender()
    for number, fault in enumerate([faults[0], *later], start=1):
        due = number * records // (len(faults) + 1)
        until(
            f"record {due}",
            lambda due=due: site.stored() >= due or site.sender_ended(),  # type: ignore[misc]
            patience_s,
        )
        assert not site.sender_ended(), f"all was sent before {fault.__name__}"
        fault()
    until("the last acknowledgement", site.sender_ended, patience_s)
    assert_each_once(site, records)


def assert_each_once(site: Site, records: int) -> None:
    with site.database() as database:
        rows = database.execute("SELECT device, stream, seq, kind, body FROM records").fetchall()
        marks = database.execute("SELECT device, through, ranges FROM streams").fetchall()
    assert {(device, kind) for device, _, _, kind, _ in rows} == {
        (DEVICE, "telemetry"),
        (DEVICE, "state"),
    }
    assert len({stream for _, stream, _, _, _ in rows}) == 1
    assert sorted(seq for _, _, seq, _, _ in rows) == list(range(1, records + 1))
    assert all(number_in(body) == seq for _, _, seq, _, body in rows)
    assert marks == [(DEVICE, records, "[]")]
