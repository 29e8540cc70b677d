"""The contract's essential lines, against the embedded broker and, as reference, Mosquitto.

Real processes, real sockets, paho as client. The lines that measure rate and memory stay in
`python -m benchmarks.broker_contract`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.broker_contract import __main__ as contract
from benchmarks.broker_contract import hostile, lines
from benchmarks.broker_contract.candidates import Candidate, Mosquitto, Ours
from benchmarks.broker_contract.lines import Line

LINES = [
    Line(lines.connects),
    Line(lines.qos1_both_ways),
    Line(lines.wrong_password_is_refused),
    Line(lines.accounts_change_without_restart),
    Line(lines.publish_below_own_id_only),
    Line(lines.subscribe_below_own_id_only),
    Line(lines.will_below_own_id_only),
    Line(lines.foreign_client_id_is_refused),
    Line(lines.own_takeover),
    Line(lines.will_on_a_cut),
    Line(lines.retained_presence),
    Line(lines.redelivers),
    Line(lines.queues_offline),
    Line(hostile.survives_malformed_packets),
    Line(hostile.refuses_oversize_packets),
    Line(lines.listens_on_loopback),
    Line(lines.stops_cleanly),
]


@pytest.fixture(params=[Ours, Mosquitto], ids=["embedded", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Candidate]:
    if request.param is Mosquitto and not (
        Path("/usr/sbin/mosquitto").exists() and shutil.which("mosquitto_passwd")
    ):
        pytest.skip("Mosquitto is not installed")
    candidate: Candidate = request.param(tmp_path)
    candidate.start()
    yield candidate
    candidate.stop()


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_the_line_holds(broker: Candidate, line: Line) -> None:
    seen = line.run(broker)
    assert seen.holds, f"{line.text}: {seen.detail}"


def test_a_candidate_that_does_not_start_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Ours):
        host = "no_such_host.py"

    monkeypatch.setitem(contract.CANDIDATES, "edgeml", Broken)
    monkeypatch.setattr("sys.argv", ["contract", "edgeml", "--line", "connects"])
    assert contract.main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "edgeml did not start and was not measured" in said.err


def test_slow_strangers_neither_stay_nor_hold_others_up(tmp_path: Path) -> None:
    broker = Ours(tmp_path)
    broker.start()
    try:
        seen = hostile.survives_slowloris(broker, connections=100)
        assert seen.holds, seen.detail
    finally:
        broker.stop()
