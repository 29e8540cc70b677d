"""The outbox: nothing is lost, nothing is missing unaccounted."""

import contextlib
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloud_sync.messages import Ack, Batch, Gap, Record, RecordKind
from cloud_sync.outbox import (
    BATCH_BYTES,
    BATCH_RECORDS,
    MAX_RECORD_BYTES,
    ON_THE_WAY_BYTES,
    RESEND_AFTER_S,
    Outbox,
)
from cloud_sync.outbox_kept import KEPT_BYTES
from cloud_sync.ranges import joined, runs
from edgeml.errors import DeviceError


class Note(msgspec.Struct):
    text: str


class Clock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def outbox(path: Path, max_bytes: int = 1 << 20) -> Outbox:
    return Outbox(path, "cam-1", "boot", max_bytes=max_bytes)


def ack_of(box: Outbox, *seqs: int) -> Ack:
    return Ack(device="cam-1", stream=box.stream, through=0, ranges=tuple(runs(seqs)))


def numbers(batch: Batch | None) -> list[int]:
    return [record.seq for record in batch.records] if batch else []


def gaps_of(records: tuple[Record, ...]) -> list[Gap]:
    return [msgspec.json.decode(r.body, type=Gap) for r in records if r.kind == "gap"]


def test_records_leave_only_when_the_fleet_has_them(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    for i in range(5):
        assert box.append(RecordKind.STATE, Note(str(i))) == i + 1
    batch = box.batch()
    assert batch is not None
    assert [r.seq for r in batch.records] == [1, 2, 3, 4, 5]
    assert box.batch() is None, "what is on its way is not sent twice at once"
    assert box.depth() == 5
    ack = Ack(device="cam-1", stream=box.stream, through=2, ranges=((4, 4),))
    assert box.acknowledge(ack) == 3
    assert box.sequences() == [3, 5]


def test_an_ack_of_another_device_or_stream_removes_nothing(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    box.append(RecordKind.STATE, Note("x"))
    assert box.acknowledge(Ack(device="cam-2", stream=box.stream, through=9)) == 0
    assert box.acknowledge(Ack(device="cam-1", stream="other", through=9)) == 0
    assert box.depth() == 1


def test_what_one_way_swallows_is_sent_again_at_once_by_another(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    box.append(RecordKind.STATE, Note("x"))
    batch = box.batch()
    assert box.batch() is None
    box.resend()
    assert box.batch() == batch
    assert box.batch() is None


def test_a_batch_that_failed_is_sent_again_at_once(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    box.append(RecordKind.STATE, Note("x"))
    batch = box.batch()
    assert batch is not None
    box.failed(batch)
    assert box.batch() == batch


def test_kinds_are_sent_apart(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    box.append(RecordKind.TELEMETRY, Note("t"))
    box.append(RecordKind.EVIDENCE, Note("e"))
    batch = box.batch([RecordKind.EVIDENCE])
    assert batch is not None
    assert [r.kind for r in batch.records] == [RecordKind.EVIDENCE]


def test_at_the_bound_the_oldest_telemetry_goes_first_and_leaves_a_gap(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db", max_bytes=2000)
    evidence = box.append(RecordKind.EVIDENCE, Note("e" * 100))
    for _ in range(40):
        box.append(RecordKind.TELEMETRY, Note("t" * 100))
    batch = box.batch(max_bytes=10**6)
    assert batch is not None
    assert evidence in {r.seq for r in batch.records}
    gaps = gaps_of(batch.records)
    assert {gap.reason for gap in gaps} == {"bytes"}
    accounted = {s for g in gaps for s in range(g.first, g.last + 1)}
    kept = {r.seq for r in batch.records}
    assert accounted | kept == set(range(1, max(kept) + 1))


def test_a_new_file_is_a_new_stream_and_an_old_one_goes_on(tmp_path: Path) -> None:
    first = outbox(tmp_path / "a.db")
    first.append(RecordKind.STATE, Note("x"))
    first.close()
    again = outbox(tmp_path / "a.db")
    assert again.stream == first.stream
    assert again.append(RecordKind.STATE, Note("y")) == 2
    assert outbox(tmp_path / "b.db").stream != first.stream


def test_numbers_are_never_used_again_after_all_was_acknowledged(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    box.append(RecordKind.STATE, Note("x"))
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=1))
    box.close()
    assert outbox(tmp_path / "o.db").append(RecordKind.STATE, Note("y")) == 2


def test_a_damaged_file_is_moved_aside_and_a_new_stream_begins(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    first = outbox(path)
    first.close()
    path.write_bytes(b"no database" * 100)
    box = outbox(path)
    assert box.stream != first.stream
    assert box.append(RecordKind.TELEMETRY, Note(text="x")) == 1
    assert (tmp_path / "o.db.damaged").read_bytes().startswith(b"no database")


def test_damage_that_shows_later_is_noticed_and_opening_again_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    box = outbox(path, max_bytes=8 << 20)
    for _ in range(400):  # more than SQLite keeps in memory
        box.append(RecordKind.TELEMETRY, Note(text="x" * 10000))
    box.close()
    data = path.read_bytes()
    box = outbox(path, max_bytes=8 << 20)
    # All but the first page, while it is open: the disk forgets what it held.
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(DeviceError, match="cannot be used"):
        box.batch()
    assert box.damaged
    box.close()
    again = outbox(path)
    assert again.stream != box.stream
    assert not again.damaged


def test_a_file_of_another_format_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(DeviceError, match="format is version 9"):
        outbox(path)
    assert list(tmp_path.glob("*.damaged")) == []


def test_a_freed_outbox_gives_its_disk_back(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    box = outbox(path, max_bytes=8 << 20)
    for _ in range(300):
        box.append(RecordKind.TELEMETRY, Note("x" * 4000))
    last = box.append(RecordKind.TELEMETRY, Note("x"))
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=last))
    box.close()
    assert path.stat().st_size < KEPT_BYTES + 200_000


def test_records_stored_together_are_all_there_or_none(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    kinds = [RecordKind.TELEMETRY, RecordKind.STATE]
    assert box.extend([(kind, Note("x")) for kind in kinds]) == range(1, 3)
    (pages,) = box._db.execute("PRAGMA page_count").fetchone()
    box._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(DeviceError, match="full"):
        box.extend([(RecordKind.STATE, Note("x" * 20_000))] * 3)
    assert box.sequences() == [1, 2]
    assert box.extend([]) == range(0)


def test_the_log_beside_the_file_stays_small_though_nothing_leaves_it(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db", max_bytes=64 << 20)
    for _ in range(40):
        box.extend([(RecordKind.TELEMETRY, Note("x" * 4000))] * 100)
    assert (tmp_path / "o.db").stat().st_size > 12 << 20
    assert (tmp_path / "o.db-wal").stat().st_size < 6 << 20


def test_the_file_shrinks_while_a_backlog_drains(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    box = outbox(path, max_bytes=64 << 20)
    last = box.extend([(RecordKind.TELEMETRY, Note("x" * 4000))] * 2000).stop - 1
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=last - 200))
    files = (path, path.with_name("o.db-wal"))
    assert sum(file.stat().st_size for file in files) < 3 << 20
    assert box.depth() == 200


def test_a_gap_counts_the_records_that_were_dropped_and_no_gap_records(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db", max_bytes=4000)
    written = 0
    for _ in range(30):
        written += len(box.extend([(RecordKind.TELEMETRY, Note("t" * 100))] * 10))
    batch = box.batch(max_bytes=10**6)
    assert batch is not None
    kept = sum(record.kind == RecordKind.TELEMETRY for record in batch.records)
    assert sum(gap.dropped for gap in gaps_of(batch.records)) == written - kept


def test_a_long_backlog_waits_on_the_disk_and_holds_up_no_state(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db", max_bytes=64 << 20)
    telemetry = (RecordKind.TELEMETRY, RecordKind.GAP)
    box.extend([(RecordKind.TELEMETRY, Note("x" * 10_000))] * 1000)
    sent: list[int] = []
    while batch := box.batch(telemetry):
        sent += numbers(batch)
    assert ON_THE_WAY_BYTES <= len(sent) * 10_000 < ON_THE_WAY_BYTES + 2 * BATCH_BYTES
    state = box.append(RecordKind.STATE, Note("now"))
    assert numbers(box.batch((RecordKind.STATE,))) == [state]
    box.acknowledge(ack_of(box, *sent))
    assert numbers(box.batch(telemetry))[0] == sent[-1] + 1


def acknowledged(box: Outbox, number: int, at: float) -> None:
    box.extend([(RecordKind.TELEMETRY, Note("x" * 100))] * number)
    while batch := box.batch():
        last = batch.records[-1].seq
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=last, at=at))
    assert box.depth() == 0


def test_what_a_restored_fleet_has_lost_is_sent_again_under_its_old_numbers(
    tmp_path: Path,
) -> None:
    box = outbox(tmp_path / "o.db")
    acknowledged(box, 30, at=100.0)
    box.close()
    box = outbox(tmp_path / "o.db")
    new = box.append(RecordKind.STATE, Note("new"))
    restored = Ack(device="cam-1", stream=box.stream, through=20, ranges=((31, 31),), at=200.0)
    assert new == 31
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=20, at=200.0))
    assert box.sequences() == [*range(21, 31), new]
    assert numbers(box.batch((RecordKind.TELEMETRY,))) == list(range(21, 31))
    box.acknowledge(restored)
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=31, at=201.0))
    assert box.depth() == 0
    assert box.append(RecordKind.STATE, Note("newer")) == 32


def test_a_restored_fleet_gets_what_it_has_lost_also_where_it_took_newer_records_first(
    tmp_path: Path,
) -> None:
    box = outbox(tmp_path / "o.db")
    acknowledged(box, 30, at=100.0)
    assert box.append(RecordKind.STATE, Note("new")) == 31
    assert numbers(box.batch()) == [31]
    box.acknowledge(
        Ack(device="cam-1", stream=box.stream, through=20, ranges=((31, 31),), at=200.0)
    )
    assert box.sequences() == list(range(21, 31))
    assert numbers(box.batch()) == list(range(21, 31))
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=31, at=201.0))
    assert box.depth() == 0


def test_an_acknowledgement_that_comes_late_brings_nothing_back(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    acknowledged(box, 30, at=100.0)
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=20, at=99.0))
    assert box.depth() == 0


def test_what_is_kept_for_a_restored_fleet_is_bounded(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db", max_bytes=64 << 20)
    for at in range(1, 6):
        box.extend([(RecordKind.TELEMETRY, Note("x" * 10_000))] * 90)
        box.acknowledge(Ack(device="cam-1", stream=box.stream, through=at * 90, at=float(at)))
    assert (tmp_path / "o.db").stat().st_size < 6 << 20
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=0, at=100.0))
    again = box.sequences()
    assert KEPT_BYTES / 2 < len(again) * 10_000 < 2 * KEPT_BYTES
    assert again == list(range(again[0], 451))


def test_what_was_sent_and_not_acknowledged_is_sent_again_after_a_while(tmp_path: Path) -> None:
    clock = Clock()
    box = Outbox(tmp_path / "o.db", "cam-1", "boot", monotonic=clock)
    box.append(RecordKind.STATE, Note("a"))
    assert numbers(box.batch()) == [1]
    clock.now += RESEND_AFTER_S / 2
    box.append(RecordKind.STATE, Note("b"))
    assert numbers(box.batch()) == [2]
    clock.now += RESEND_AFTER_S / 2
    assert numbers(box.batch()) == [1]
    clock.now += RESEND_AFTER_S / 2
    assert numbers(box.batch()) == [2]


def test_a_batch_is_bounded_in_records_and_in_bytes_but_never_empty(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    for _ in range(BATCH_RECORDS + 1):
        box.append(RecordKind.TELEMETRY, Note("t"))
    box.append(RecordKind.STATE, Note("s" * 5000))
    assert numbers(box.batch([RecordKind.STATE], max_bytes=100)) == [BATCH_RECORDS + 2]
    assert numbers(box.batch()) == list(range(1, BATCH_RECORDS + 1))
    assert numbers(box.batch()) == [BATCH_RECORDS + 1]
    assert box.batch() is None


def test_a_batch_holds_records_of_one_boot_and_says_of_which(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    first = Outbox(path, "cam-1", "boot-1")
    first.append(RecordKind.STATE, Note("before"))
    first.close()
    second = Outbox(path, "cam-1", "boot-2")
    second.append(RecordKind.STATE, Note("after"))
    sent = [second.batch(), second.batch()]
    assert [(b.boot_id, numbers(b)) for b in sent if b] == [("boot-1", [1]), ("boot-2", [2])]


def test_what_is_too_old_leaves_a_gap_that_says_so(tmp_path: Path) -> None:
    clock = Clock()
    box = Outbox(tmp_path / "o.db", "cam-1", "boot", monotonic=clock, max_age_s=100)
    box.append(RecordKind.EVIDENCE, Note("old"))
    clock.now += 101
    box.append(RecordKind.STATE, Note("new"))
    batch = box.batch()
    assert batch is not None
    assert numbers(batch) == [2, 3]
    assert gaps_of(batch.records) == [Gap(first=1, last=1, dropped=1, reason="age")]


def test_age_goes_on_after_a_restart_and_a_jump_of_the_wall_clock_ages_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "o.db"
    wall = [0.0]
    for seconds in (60.0, 0.0):
        clock = Clock()
        clock.now = 5.0  # each boot begins its own monotonic time
        box = Outbox(path, "cam-1", "boot", monotonic=clock, wall=lambda: wall[0], max_age_s=100)
        clock.now += seconds
        box.append(RecordKind.STATE, Note("x"))
        wall[0] = 2e9
        box.append(RecordKind.STATE, Note("y"))
        assert all(seq <= 4 for seq in box.sequences())
        box.close()
    clock = Clock()
    box = Outbox(path, "cam-1", "boot", monotonic=clock, max_age_s=100)
    clock.now += 101
    box.append(RecordKind.STATE, Note("z"))
    assert box.sequences() == [5, 6], "four aged out, one is new, one is the gap"


def test_a_record_that_no_message_could_carry_is_a_gap(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    assert box.append(RecordKind.EVIDENCE, Note("x" * MAX_RECORD_BYTES)) == 1
    batch = box.batch()
    assert batch is not None
    assert gaps_of(batch.records) == [Gap(first=1, last=1, dropped=1, reason="size")]


def test_an_outbox_from_a_backup_goes_past_what_the_fleet_has(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    box.append(RecordKind.STATE, Note("x"))
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=70))
    assert box.append(RecordKind.STATE, Note("y")) == 71


@given(
    through=st.integers(-(1 << 70), 1 << 70),
    ranges=st.lists(
        st.tuples(st.integers(-(1 << 70), 1 << 70), st.integers(-(1 << 70), 1 << 70)), max_size=4
    ),
)
@settings(max_examples=30, deadline=None)
def test_no_numbers_in_an_ack_break_the_outbox(through: int, ranges: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        box = outbox(Path(folder) / "o.db")
        box.append(RecordKind.STATE, Note("x"))
        box.acknowledge(
            Ack(device="cam-1", stream=box.stream, through=through, ranges=tuple(ranges))
        )
        box.append(RecordKind.STATE, Note("y"))
        box.close()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=12))
def test_joined_ranges_hold_the_same_numbers_and_never_touch(
    spans: list[tuple[int, int]],
) -> None:
    ranges = [(first, first + length) for first, length in spans]
    found = joined(ranges)
    assert {n for a, b in found for n in range(a, b + 1)} == {
        n for a, b in ranges for n in range(a, b + 1)
    }
    assert all(b + 1 < c for (_, b), (c, _) in itertools.pairwise(found))


def test_a_full_disk_is_said_so_and_loses_no_number(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    box.append(RecordKind.STATE, Note("kept"))
    (pages,) = box._db.execute("PRAGMA page_count").fetchone()
    box._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(DeviceError, match="full"):
        box.append(RecordKind.TELEMETRY, Note("x" * 9000))
    box._db.execute("PRAGMA max_page_count=100000")
    assert box.append(RecordKind.STATE, Note("later")) == 2
    assert box.sequences() == [1, 2]


def test_a_closed_outbox_says_so(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    box.close()
    with pytest.raises(DeviceError):
        box.append(RecordKind.STATE, Note("x"))


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE records (seq INTEGER)")
    other.close()
    with pytest.raises(DeviceError, match="format"):
        outbox(path)


def test_threads_share_an_outbox_and_every_number_is_given_once(tmp_path: Path) -> None:
    box = outbox(tmp_path / "o.db")
    given_numbers: list[int] = []
    sent: set[int] = set()
    writers = [
        threading.Thread(
            target=lambda: given_numbers.extend(
                box.append(RecordKind.TELEMETRY, Note("x")) for _ in range(100)
            )
        )
        for _ in range(3)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers) or box.depth():
        batch = box.batch()
        assert not sent & set(numbers(batch))
        sent |= set(numbers(batch))
        box.acknowledge(ack_of(box, *numbers(batch)))
    assert sorted(given_numbers) == sorted(sent) == list(range(1, 301))


_WRITER = """
import sys
from pathlib import Path
import msgspec
from cloud_sync.messages import RecordKind
from cloud_sync.outbox import Outbox
class Note(msgspec.Struct):
    text: str
box = Outbox(Path(sys.argv[1]), "cam-1", "boot")
while True:
    print(box.append(RecordKind.STATE, Note("x" * 200)), flush=True)
"""


def test_kill_9_while_writing_loses_no_record_that_was_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            confirmed = 0
            while confirmed == 0 or confirmed % 20:
                confirmed = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            confirmed = max([confirmed, *map(int, writer.stdout.read().split())])
        box = outbox(path)
        assert box.sequences()[:confirmed] == list(range(1, confirmed + 1))
        box.close()


class Plugged:
    """An outbox on a disk whose cable can be pulled: what SQLite did not sync is gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live, self.safe = folder / "live", folder / "safe"
        self.live.mkdir()
        self._full = self._synced = True
        self._start()

    def settle(self) -> None:
        """Note what is on the disk; a commit with synchronous=FULL takes all before it along."""
        if self._synced:
            shutil.rmtree(self.safe, ignore_errors=True)
            shutil.copytree(self.live, self.safe)

    def restart(self, *, power_loss: bool) -> None:
        self.box.close()
        if power_loss:
            shutil.rmtree(self.live)
            shutil.copytree(self.safe, self.live)
        self._start()

    def _start(self) -> None:
        self.box = outbox(self.live / "o.db", max_bytes=1500)
        self.box._db.set_trace_callback(self._trace)
        self.settle()

    def _trace(self, statement: str) -> None:
        if statement.startswith("PRAGMA synchronous="):
            self._full = statement.endswith("FULL")
        elif statement == "COMMIT":
            self._synced = self._full


class OutboxMachine(RuleBasedStateMachine):
    """Every number waits, is acknowledged, or is covered by a gap; none is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.disk = Plugged(Path(self.folder.name))
        self.handed: dict[int, Record] = {}
        self.acknowledged: set[int] = set()

    def teardown(self) -> None:
        self.disk.box.close()
        self.folder.cleanup()

    @rule(
        kind=st.sampled_from([RecordKind.TELEMETRY, RecordKind.STATE, RecordKind.EVIDENCE]),
        size=st.integers(0, 300),
    )
    def append(self, kind: RecordKind, size: int) -> None:
        self.disk.box.append(kind, Note("x" * size))
        self.disk.settle()

    @rule(
        kinds=st.sets(st.sampled_from(RecordKind), min_size=1).map(sorted),
        max_bytes=st.integers(0, 2000),
        arrives=st.booleans(),
    )
    def send(self, kinds: list[RecordKind], max_bytes: int, arrives: bool) -> None:
        batch = self.disk.box.batch(kinds, max_bytes)
        self.disk.settle()
        if batch is None:
            return
        for record in batch.records:
            assert record.kind in kinds
            assert self.handed.setdefault(record.seq, record) == record, "a number came twice"
        if not arrives:
            self.disk.box.failed(batch)

    @precondition(lambda self: self.handed)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        stored = data.draw(st.sets(st.sampled_from(sorted(self.handed))))
        self.acknowledged |= stored
        self.disk.box.acknowledge(ack_of(self.disk.box, *stored))
        self.disk.settle()

    @rule(power_loss=st.booleans())
    def restart(self, power_loss: bool) -> None:
        stream = self.disk.box.stream
        self.disk.restart(power_loss=power_loss)
        assert self.disk.box.stream == stream

    @invariant()
    def nothing_is_unaccounted(self) -> None:
        rows = self.disk.box._db.execute("SELECT seq, kind, body FROM records").fetchall()
        known = {seq for seq, _, _ in rows} | self.acknowledged
        gaps = [msgspec.json.decode(body, type=Gap) for _, kind, body in rows if kind == "gap"]
        gaps += gaps_of(tuple(self.handed[seq] for seq in self.acknowledged))
        for gap in gaps:
            known |= set(range(gap.first, gap.last + 1))
        assert set(range(1, max([0, *known, *self.handed]) + 1)) == known

    @invariant()
    def the_bound_holds(self) -> None:
        (size,) = self.disk.box._db.execute(
            "SELECT coalesce(sum(length(body)), 0) FROM records"
        ).fetchone()
        assert size == self.disk.box._bytes
        assert size <= 1500 + 100 * len(self.disk.box.sequences())


OutboxMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestOutboxMachine = OutboxMachine.TestCase


def test_records_of_this_boot_are_dated_by_the_fleets_word_and_others_are_not(
    tmp_path: Path,
) -> None:
    clock = Clock()

    def boot(name: str) -> Outbox:
        return Outbox(tmp_path / "o.db", "cam-1", name, monotonic=clock, wall=lambda: None)

    before = boot("before")
    before.append(RecordKind.TELEMETRY, Note(text="long ago"))
    before.close()
    box = boot("this")
    box.append(RecordKind.TELEMETRY, Note(text="now"))
    clock.now += 40
    question = box.question()
    assert question is not None
    assert question.records == ()
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=0, at=1_800_000_040.0))
    assert box.question() is None
    dates = {}
    while batch := box.batch((RecordKind.TELEMETRY,)):
        dates[batch.boot_id] = [record.at for record in batch.records]
    box.close()
    assert dates == {"before": [None], "this": [1_800_000_000.0]}
