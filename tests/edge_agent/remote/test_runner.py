"""A command is kept, done once and answered, whatever happens in between."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloud_sync.commands import Command, CommandKind, CommandResult, CommandStatus
from cloud_sync.messages import SecurityKind, SecurityRecord, encode
from cloud_sync.trust import PayloadType, generate, key_id, open_envelope, sign
from edge_agent.mailbox import Frame
from edge_agent.remote.doing import MAX_TEXT, Brought, _text
from edge_agent.remote.journal import CommandJournal, Stage
from edge_agent.remote.log_tail import LogTail
from edge_agent.remote.runner import CommandRunner
from edge_agent.remote.tap import Tap
from edgeml.errors import DeviceError

DIRECTOR = generate()
KEYS = {key_id(DIRECTOR.public_key()): DIRECTOR.public_key()}


def command(name: str = "one", kind: str = "log-tail", **how: object) -> Command:
    given = {"device": "cam-1", "issued_at": 1000.0, "expires_at": 2000.0, **how}
    return Command(id=name, kind=kind, **given)  # type: ignore[arg-type]


def signed(wanted: Command) -> bytes:
    return sign(encode(wanted), PayloadType.COMMAND, DIRECTOR)


class Bench:
    """A runner over a real journal, and what it did and said."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "commands.db"
        self.now: float | None = 1500.0
        self.proven = 900.0
        self.has_outbox = True
        self.done: list[str] = []
        self.told: list[CommandResult] = []
        self.refused: list[SecurityRecord] = []
        self.last_acts = 0
        self.act: Callable[[Command], Brought] = lambda it: Brought(content=f"did {it.id}")
        self.open()

    def open(self) -> None:
        self.journal = CommandJournal(self.path)
        self.runner = CommandRunner(
            self.journal,
            "cam-1",
            opened=lambda envelope: open_envelope(envelope, KEYS, PayloadType.COMMAND),
            now=lambda: self.now,
            proven=lambda: self.proven,
            do=dict.fromkeys(CommandKind, self._do),
            tell=self._tell,
            refused=self.refused.append,
            last_act={CommandKind.WIPE: self._last},
        )

    def again(self) -> None:
        """As after a kill: the memory is gone, the file stays."""
        self.journal.close()
        self.open()

    def take(self, wanted: Command | bytes, *, asked: bool = False) -> None:
        self.runner.take(wanted if isinstance(wanted, bytes) else signed(wanted), asked=asked)

    def turn(self) -> None:
        self.runner.turn(0.0)

    def _do(self, wanted: Command) -> Brought:
        self.done.append(wanted.id)
        return self.act(wanted)

    def _tell(self, result: CommandResult) -> bool:
        if self.has_outbox:
            self.told.append(result)
        return self.has_outbox

    def _last(self) -> None:
        self.last_acts += 1


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_command_is_done_and_answered(bench: Bench) -> None:
    bench.take(command())
    bench.turn()
    [result] = bench.told
    assert (result.command, result.status, result.content) == ("one", "done", "did one")


def test_what_comes_twice_is_done_once_also_after_a_restart(bench: Bench) -> None:
    bench.take(command())
    bench.take(command(), asked=True)
    bench.turn()
    bench.take(command())
    bench.turn()
    bench.again()
    bench.take(command())
    bench.turn()
    assert bench.done == ["one"]
    assert len(bench.told) == 1


def test_what_was_kept_before_a_kill_is_done_after_it(bench: Bench) -> None:
    bench.take(command())
    bench.again()
    bench.turn()
    assert bench.done == ["one"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [("log-tail", CommandStatus.INTERRUPTED), ("restart", CommandStatus.DONE)],
)
def test_what_the_agent_died_in_is_answered_and_not_done_again(
    bench: Bench, kind: str, status: CommandStatus
) -> None:
    def die(_: Command) -> Brought:
        raise SystemExit

    bench.act = die
    bench.take(command(kind=kind))
    with pytest.raises(SystemExit):
        bench.turn()
    bench.again()
    bench.turn()
    assert bench.done == ["one"]
    assert [result.status for result in bench.told] == [status]


def test_an_answer_waits_for_the_outbox_and_is_not_lost_by_a_kill(bench: Bench) -> None:
    bench.has_outbox = False
    bench.take(command())
    with pytest.raises(DeviceError, match="answer waits"):
        bench.turn()
    bench.again()
    bench.has_outbox = True
    bench.turn()
    assert bench.done == ["one"]
    assert [result.content for result in bench.told] == ["did one"]


def test_a_last_act_is_done_again_until_it_ends_the_process(bench: Bench) -> None:
    def fall(self: Bench = bench) -> None:
        self.last_acts += 1
        raise SystemExit

    bench.runner._last_act = {"wipe": fall}
    bench.take(command(kind="wipe"))
    with pytest.raises(SystemExit):
        bench.turn()
    bench.again()
    bench.turn()
    assert bench.last_acts == 2
    assert bench.done == ["one"]


def test_what_fails_or_is_not_known_is_answered_with_the_reason(bench: Bench) -> None:
    def fail(_: Command) -> Brought:
        raise DeviceError("The camera is gone.", why="It was unplugged.")

    bench.act = fail
    bench.take(command("one"))
    bench.take(command("two", kind="dance"))
    bench.turn()
    assert [(r.status, r.reason) for r in bench.told] == [
        ("failed", "The camera is gone. It was unplugged."),
        ("refused", "this agent does not know it"),
    ]


def test_an_expired_command_is_refused_answered_and_reported(bench: Bench) -> None:
    bench.now = 2001.0
    bench.take(command())
    bench.turn()
    assert bench.done == []
    assert [result.status for result in bench.told] == ["expired"]
    assert [record.kind for record in bench.refused] == [SecurityKind.EXPIRED_COMMAND]
    assert "expired 1 seconds ago" in bench.refused[0].detail


def test_one_that_was_done_in_time_and_comes_again_after_its_end_is_no_event(bench: Bench) -> None:
    bench.take(command())
    bench.turn()
    bench.now = 2001.0
    bench.take(command())
    bench.turn()
    assert (bench.done, bench.refused) == (["one"], [])
    assert [result.status for result in bench.told] == ["done"]


def test_without_a_trusted_time_only_the_fleets_own_answer_is_taken(bench: Bench) -> None:
    bench.now = None
    with pytest.raises(DeviceError, match="does not know the time"):
        bench.take(command())
    bench.take(command(), asked=True)
    bench.turn()
    assert bench.done == ["one"]


def forged() -> bytes:
    return sign(encode(command()), PayloadType.COMMAND, generate())


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        (forged(), "None of the keys"),
        (signed(command(device="cam-2")), "It is for 'cam-2'"),
        (signed(command(version=2)), "version 2 was refused"),
        (signed(command(expires_at=9e9)), "lifetime is not allowed"),
        (sign(encode(command()), PayloadType.ACK, DIRECTOR), "It holds"),
        (b"{", "could not be read"),
    ],
)
def test_what_the_director_has_not_signed_for_this_device_is_refused_and_reported(
    bench: Bench, envelope: bytes, why: str
) -> None:
    bench.take(envelope)
    bench.turn()
    assert bench.done == []
    assert [record.kind for record in bench.refused] == [SecurityKind.REFUSED_COMMAND]
    assert why in bench.refused[0].detail
    bench.take(envelope)
    assert len(bench.refused) == 1, "a flood of them is reported once a minute"


def test_what_expired_by_the_proven_time_is_forgotten(bench: Bench) -> None:
    bench.take(command("one"))
    bench.turn()
    bench.proven = 2500.0
    bench.now = 2500.0
    bench.take(command("two", issued_at=2400.0, expires_at=3000.0))
    bench.turn()
    assert [each.id for each in bench.journal.at(Stage.TOLD)] == ["two"]


def test_a_damaged_journal_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "commands.db"
    path.write_bytes(b"no database at all" * 100)
    journal = CommandJournal(path)
    assert journal.take(command(), 0.0)
    assert (tmp_path / "commands.db.damaged").exists()
    journal.close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM commands").fetchone() == (1,)


def test_the_log_s_end_is_kept_and_cut(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    tail = LogTail()
    logger = logging.getLogger("test-of-the-tail")
    logger.addHandler(tail)
    for number in range(5):
        logger.warning("line %d", number)
    logger.removeHandler(tail)
    assert [line[-6:] for line in tail.last(2).splitlines()] == ["line 3", "line 4"]


def test_text_is_cut_to_its_end_by_what_it_takes_on_the_wire() -> None:
    text = "".join(f"{number}\x01\n" for number in range(100_000))
    cut = _text(text).content
    assert len(msgspec.json.encode(cut)) <= MAX_TEXT
    assert text.endswith(cut)


def test_a_tap_shows_the_next_frame_of_a_source_and_passes_all_on() -> None:
    passed: list[int] = []

    def deliver(_model: str, frame: Frame) -> bool:
        passed.append(frame.index)
        return False

    tap = Tap(deliver)
    seen: list[object] = []
    looking = threading.Thread(target=lambda: seen.append(tap.next_frame("belt", 30.0)))
    looking.start()
    number = 0
    while looking.is_alive():
        for source in ("gate", "belt"):
            image = np.full((2, 2), 7 if source == "belt" else 1, np.uint8)
            tap("toy", Frame(source=source, index=number, captured=0.0, image=image))
            number += 1
    assert int(seen[0][0, 0]) == 7  # type: ignore[index]
    assert passed == list(range(number))
    assert tap.next_frame("belt", 0.01) is None
