"""The outbox: nothing is lost, nothing is missing unaccounted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloud_sync.messages import Ack, Gap, RecordKind
from cloud_sync.outbox import Outbox
from edgeml.errors import DeviceError


class Note(msgspec.Struct):
    text: str


def outbox(path: Path, max_bytes: int = 1 << 20) -> Outbox:
    return Outbox(path, "cam-1", "boot", max_bytes=max_bytes)


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
    gaps = [msgspec.json.decode(r.body, type=Gap) for r in batch.records if r.kind == "gap"]
    assert gaps
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


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(DeviceError, match="Move the file away"):
        outbox(path)


def test_a_freed_outbox_gives_its_disk_back(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    box = outbox(path, max_bytes=8 << 20)
    for _ in range(300):
        box.append(RecordKind.TELEMETRY, Note("x" * 4000))
    last = box.append(RecordKind.TELEMETRY, Note("x"))
    box.acknowledge(Ack(device="cam-1", stream=box.stream, through=last))
    box.close()
    assert path.stat().st_size < 200_000


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


class OutboxMachine(RuleBasedStateMachine):
    """Every number is waiting, acknowledged, or covered by a gap record."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "o.db"
        self.box = outbox(self.path, max_bytes=1500)
        self.acknowledged: set[int] = set()
        self.gaps: set[int] = set()
        self.last = 0

    def teardown(self) -> None:
        self.box.close()
        self.folder.cleanup()

    @rule(
        kind=st.sampled_from([RecordKind.TELEMETRY, RecordKind.STATE, RecordKind.EVIDENCE]),
        size=st.integers(0, 300),
    )
    def append(self, kind: RecordKind, size: int) -> None:
        self.box.append(kind, Note("x" * size))
        self._note()

    @rule()
    def crash_and_reopen(self) -> None:
        self.box.close()
        self.box = outbox(self.path, max_bytes=1500)

    @precondition(lambda self: self.last > 0)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self._note()
        waiting = self.box.sequences()
        through = data.draw(st.integers(0, self.last))
        extra = data.draw(st.lists(st.sampled_from(waiting), max_size=3)) if waiting else []
        self.acknowledged |= set(range(1, through + 1)) | set(extra)
        ranges = tuple((s, s) for s in extra)
        self.box.acknowledge(
            Ack(device="cam-1", stream=self.box.stream, through=through, ranges=ranges)
        )

    def _note(self) -> None:
        batch = self.box.batch(max_bytes=10**9)
        for record in batch.records if batch else ():
            if record.kind == "gap":
                gap = msgspec.json.decode(record.body, type=Gap)
                self.gaps |= set(range(gap.first, gap.last + 1))
        if batch:
            self.box.failed(batch)
        self.last = max([self.last, *self.box.sequences()])

    @invariant()
    def nothing_is_unaccounted(self) -> None:
        known = set(self.box.sequences()) | self.acknowledged | self.gaps
        assert set(range(1, self.last + 1)) <= known


OutboxMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestOutboxMachine = OutboxMachine.TestCase
