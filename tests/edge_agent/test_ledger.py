"""What the network really cost, kept through kill -9, and the budget that it is held against."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.data_budget import bounds, cost, month_of
from cloud_sync.messages import Cause, DataBudget
from cloud_sync.metering import Meter, Traffic
from cloud_sync.release import Blobs
from cloud_sync.transfer import OciClient
from edge_agent.budget import BudgetSpent
from edge_agent.ledger import KEPT_MONTHS, Ledger
from edgeml.errors import DeviceError, ReleaseError
from tests.cloud_sync.registries import DATA, DIGEST, FaultyRegistry, running
from tests.needs import program

MB = 1_000_000


class Tap:
    """What counts bytes, steered by assignment."""

    def __init__(self) -> None:
        self.sent = self.received = 0
        self.buffered = 0

    def traffic(self) -> Traffic:
        return Traffic(self.sent, self.received)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db")) as made:
        yield made


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with running(FaultyRegistry()) as made:
        yield made


def fetch(ledger: Ledger, registry: FaultyRegistry, blobs: Blobs, rollout: str = "r1") -> None:
    with closing(OciClient(registry.url, sleep=lambda _seconds: None)) as client:
        account = ledger.account(client.meter, Cause.FULL, rollout)
        client.fetch_blob("m", DIGEST, len(DATA), blobs, account)


def test_a_download_is_charged_to_its_rollout_with_all_that_is_around_it(
    ledger: Ledger, registry: FaultyRegistry, tmp_path: Path
) -> None:
    fetch(ledger, registry, Blobs(tmp_path))
    [entry] = ledger.entries()
    assert (entry.rollout, entry.cause, entry.month) == ("r1", Cause.FULL, ledger.month())
    assert len(DATA) < entry.received < cost(len(DATA))
    assert 100 < entry.sent < 10_000


def test_what_is_spent_again_is_a_retry(
    ledger: Ledger, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.answers = [(503, {}), (503, {})]
    registry.cut_at = 100_000
    fetch(ledger, registry, Blobs(tmp_path))
    spent = {entry.cause: entry for entry in ledger.entries()}
    assert len(DATA) < spent[Cause.FULL].received + 2000
    assert 0 < spent[Cause.RETRY].received < 5000, "headers, no byte of the blob"


def test_a_spoilt_blob_is_charged_both_times(
    ledger: Ledger, registry: FaultyRegistry, tmp_path: Path
) -> None:
    part = Blobs(tmp_path).part(DIGEST)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"X" * 1000)
    fetch(ledger, registry, Blobs(tmp_path))
    assert ledger.spent(rollout="r1") > 2 * len(DATA) - 1000


CHILD = """
import os, sys
from pathlib import Path
from cloud_sync.messages import Cause
from cloud_sync.release import Blobs
from cloud_sync.transfer import OciClient
from cloud_sync.watch import Watch
from edge_agent.ledger import KEPT_MONTHS, Ledger
from tests.cloud_sync.registries import DATA, DIGEST

url, folder, when = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
client = OciClient(url)
account = Ledger(folder / "ledger.db").account(client.meter, Cause.FULL, "r1")

class Dies(Watch):
    seen = 0
    def attempt(self, number, missing):
        account.attempt(number, missing)
    def arrived(self, count):
        account.arrived(count)
        self.seen += count
        if self.seen >= when:
            os.kill(os.getpid(), 9)

client.fetch_blob("m", DIGEST, len(DATA), Blobs(folder), Dies())
"""


@pytest.mark.parametrize("when", [1, 100_000, 400_000])
def test_a_process_that_is_killed_never_counts_too_little(
    registry: FaultyRegistry, tmp_path: Path, when: int
) -> None:
    died = subprocess.run(
        [sys.executable, "-c", CHILD, registry.url, str(tmp_path), str(when)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    here = Blobs(tmp_path).part(DIGEST).stat().st_size
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        charged = ledger.spent(rollout="r1")
        assert charged >= here
        assert charged <= 2 * cost(len(DATA)), "and not wildly too much"
        fetch(ledger, registry, Blobs(tmp_path))
        assert ledger.spent(rollout="r1") >= charged + len(DATA) - here


def test_a_budget_that_is_too_small_lets_no_byte_come(
    registry: FaultyRegistry, tmp_path: Path
) -> None:
    budget = DataBudget(rollout_bytes=100_000)
    with closing(Ledger(tmp_path / "ledger.db", lambda: budget)) as ledger:
        with pytest.raises(BudgetSpent, match=r"0\.5\d MB are needed, 0\.10 MB are left") as error:
            fetch(ledger, registry, Blobs(tmp_path))
        assert error.value.waits
        assert registry.ranges == []
        budget = DataBudget(rollout_bytes=2 * len(DATA))
        fetch(ledger, registry, Blobs(tmp_path))
        assert ledger.spent() <= budget.rollout_bytes  # type: ignore[operator]


def test_retries_do_not_exceed_the_budget_either(registry: FaultyRegistry, tmp_path: Path) -> None:
    budget = DataBudget(month_bytes=3 * len(DATA) // 2, when_spent="refuse")
    registry.fault = "corrupt"
    with closing(Ledger(tmp_path / "ledger.db", lambda: budget)) as ledger:
        with pytest.raises(ReleaseError):
            fetch(ledger, registry, Blobs(tmp_path))
        asked = len(registry.ranges)
        with pytest.raises(BudgetSpent, match="of this month") as error:
            fetch(ledger, registry, Blobs(tmp_path), rollout="r2")
        assert not error.value.waits
        assert len(registry.ranges) == asked
        assert ledger.spent() <= 3 * len(DATA) // 2


def test_what_goes_on_in_another_thread_counts_before_it_is_settled(ledger: Ledger) -> None:
    tap = Tap()
    account = ledger.account(tap, Cause.FULL, "r1")
    account.attempt(1, 10 * MB)
    assert ledger.spent(rollout="r1") > 0
    before = ledger.spent(rollout="r1")
    tap.received = before - 1
    account.arrived(before - 1)
    assert ledger.spent(rollout="r1") >= tap.received
    account.ended()
    assert ledger.spent(rollout="r1") == tap.received


def test_the_month_begins_anew(tmp_path: Path) -> None:
    budget = DataBudget(month_bytes=MB, month_begins=15)
    now = 1_700_000_000.0  # 14 November 2023
    with closing(Ledger(tmp_path / "ledger.db", lambda: budget, lambda: now)) as ledger:
        tap = Tap()
        account = ledger.account(tap, Cause.TELEMETRY)
        tap.sent = MB
        account.ended()
        assert ledger.month() == "2023-10"
        with pytest.raises(BudgetSpent, match="nothing may be fetched"):
            ledger.require(0, "", 0)
        now += 2 * 86400.0
        ledger.require(1000, "", 0)


def test_a_report_has_what_changed_and_only_that(ledger: Ledger) -> None:
    tap = Tap()
    account = ledger.account(tap, Cause.FULL, "r1")
    assert ledger.report(soon=True) is None
    tap.received = 500
    account.ended()
    assert ledger.report() is None, "not yet"
    first = ledger.report(soon=True)
    assert first is not None
    assert [(e.rollout, e.received) for e in first.entries] == [("r1", 500)]
    tap.received = 700
    account.ended()
    ledger.reported(first)
    again = ledger.report(soon=True)
    assert again is not None
    assert [e.received for e in again.entries] == [700], "it had changed meanwhile"
    ledger.reported(again)
    assert ledger.report(soon=True) is None
    ledger.failed_delta("r1", "digest-mismatch")
    failed = ledger.report(soon=True)
    assert failed is not None
    assert [(e.cause, e.failures, e.note) for e in failed.entries] == [
        (Cause.DELTA, 1, "digest-mismatch")
    ]


def test_a_ledger_that_cannot_be_written_lets_nothing_come(
    registry: FaultyRegistry, tmp_path: Path
) -> None:
    (tmp_path / "ledger.db").mkdir()
    with (
        closing(Ledger(tmp_path / "ledger.db")) as ledger,
        pytest.raises(DeviceError, match="cannot be written"),
    ):
        fetch(ledger, registry, Blobs(tmp_path))
    assert registry.ranges == []


@given(st.floats(0, 4e9), st.integers(1, 28))
def test_every_moment_is_in_one_month_and_they_do_not_go_back(unix_s: float, begins: int) -> None:
    assert month_of(unix_s, begins) <= month_of(unix_s + 86400.0, begins)
    assert month_of(unix_s, begins) < month_of(unix_s + 32 * 86400.0, begins)


def test_the_device_s_own_word_is_the_narrower() -> None:
    assert bounds(DataBudget(), 0).rollout_bytes is None
    assert bounds(DataBudget(rollout_bytes=0), 5).rollout_bytes == 0


def test_the_meter_says_what_a_network_interface_says(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a network namespace")
    script = """
import ctypes, fcntl, json, socket, struct, threading
from pathlib import Path
from cloud_sync.metering import Meter
with socket.socket() as any_socket:
    for offload in (0x1F, 0x24):  # ETHTOOL_STSO, ETHTOOL_SGSO: packets as they are on a wire
        off = ctypes.create_string_buffer(struct.pack("II", offload, 0))
        request = struct.pack("16sP", b"lo", ctypes.addressof(off))
        fcntl.ioctl(any_socket, 0x8946, request)
server = socket.create_server(("127.0.0.1", 0))
def serve():
    got, _ = server.accept()
    with got:
        got.recv(100)
        got.sendall(bytes(3_000_000))
threading.Thread(target=serve, daemon=True).start()
def read():
    [line] = [x for x in Path("/proc/self/net/dev").read_text().splitlines() if "lo:" in x]
    return int(line.partition(":")[2].split()[0])
before = read()
meter = Meter()
client = socket.create_connection(server.getsockname())
meter.watch(client)
client.sendall(b"hello")
while client.recv(1 << 16):
    pass
client.close()
print(json.dumps([meter.traffic().total, read() - before]))
"""
    ip = program("ip", "iproute2")
    code = f'{ip} link set lo up mtu 1500 && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", code, sys.executable, script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    counted, real = json.loads(done.stdout)
    # The interface counts 14 bytes of Ethernet a packet, too.
    assert 0.96 * real <= counted <= real


def test_a_connection_that_was_closed_stays_counted() -> None:
    meter = Meter()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
            meter.watch(client)
            peer.sendall(bytes(1000))
            got = 0
            while got < 1000:
                got += len(client.recv(1000))
            assert meter.traffic().received > 1000
        closed = meter.traffic()
        assert closed.received > 1000
        assert meter.traffic() == closed


def test_a_damaged_ledger_is_moved_aside_and_counts_what_of_the_month_has_passed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no ledger" * 1000)
    budget = DataBudget(month_bytes=30 * MB)
    half = 14.5 * 86400.0  # the 15th of a month of 31 days
    with closing(Ledger(path, lambda: budget, lambda: half)) as ledger:
        ledger.require(14 * MB, "", 0)
        with pytest.raises(BudgetSpent):
            ledger.require(15 * MB, "", 0)
        assert ledger.spent() == 0
        record = ledger.report(soon=True)
    assert record is not None
    [told] = record.entries
    assert told.failures == 1
    assert "damaged" in told.note
    assert path.with_name("ledger.db.damaged").read_bytes().startswith(b"no ledger")
    with closing(Ledger(path, lambda: budget, lambda: half + 20 * 86400.0)) as ledger:
        assert ledger.id == record.ledger
        ledger.require(25 * MB, "", 0)


def test_a_ledger_that_is_damaged_while_it_is_open_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)) as ledger:
        for number in range(200):
            ledger.failed_delta(f"{number:064}", "delta-damaged")
        ledger.close()
        before = ledger.id
        with path.open("r+b") as stream:
            stream.seek(4096)
            stream.write(bytes(path.stat().st_size - 4096))
        with pytest.raises(DeviceError, match="ledger"):
            ledger.failed_delta("r1", "delta-damaged")
        ledger.failed_delta("r1", "delta-damaged")
        assert ledger.id != before


def test_old_months_are_forgotten_by_their_number_and_not_by_the_clock(tmp_path: Path) -> None:
    now = 0.0
    with closing(Ledger(tmp_path / "ledger.db", now=lambda: now)) as ledger:
        for _ in range(KEPT_MONTHS + 3):
            ledger.failed_delta("r1", "delta-damaged")
            now += 31 * 86400.0
        now *= 10
        ledger.report(soon=True)
        assert len({entry.month for entry in ledger.entries()}) == KEPT_MONTHS
