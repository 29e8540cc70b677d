"""`edgeml devices budget` and `devices ledger`, against real listeners and a device's outbox."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloud_sync.messages import Cause, LedgerEntry, LedgerRecord, RecordKind
from edgeml.cli import app
from edgeml.errors import EdgemlError, UserError

Run = Callable[..., str]
ENTRIES = (
    LedgerEntry(month="2026-11", rollout="r1", cause=Cause.FULL, sent=50_000, received=7_000_000),
    LedgerEntry(
        month="2026-11", rollout="r1", cause=Cause.DELTA, sent=1, received=2, failures=1,
        note="digest-mismatch",
    ),
)  # fmt: skip


@pytest.fixture
def run(fleet: Any, tmp_path: Path) -> Run:
    def make(*arguments: str) -> str:
        environment = {"EDGEML_FLEET": fleet.operators, "EDGEML_FLEET_DATA": f"{tmp_path}/fleet"}
        done = CliRunner().invoke(app, ["devices", *arguments], env=environment)
        if isinstance(done.exception, EdgemlError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return make


@pytest.fixture
def device(make_device: Callable[..., Any]) -> Any:
    return make_device()


@pytest.mark.usefixtures("device")
def test_a_budget_is_set_shown_and_taken_away(run: Run) -> None:
    assert "a month, from day 1: no bound" in run("budget", "cam-1")
    said = run("budget", "cam-1", "--month", "1.5GB", "--begins", "15", "--why", "a new plan")
    assert "a month, from day 15: 1,500.00 MB" in said
    run("budget", "cam-1", "--rollout", "40MB", "--when-spent", "refuse")
    found = json.loads(run("budget", "cam-1", "--json"))["data_budget"]
    assert found == {
        "month_bytes": 1_500_000_000,
        "rollout_bytes": 40_000_000,
        "month_begins": 15,
        "when_spent": "refuse",
    }
    assert "no bound" in run("budget", "cam-1", "--month", "none")
    with pytest.raises(UserError, match="is no size"):
        run("budget", "cam-1", "--month", "much")


def test_a_device_s_ledger_is_shown(run: Run, device: Any) -> None:
    assert "has told of no cost yet" in run("ledger", "cam-1")
    device.outbox.append(RecordKind.LEDGER, LedgerRecord(ledger="a", entries=ENTRIES))
    client = device.client()
    batch = device.outbox.batch((RecordKind.LEDGER,))
    client.send(batch)
    client.close()
    said = run("ledger", "cam-1")
    assert "7.00 MB" in said
    assert "1 failed: digest-mismatch" in said
    assert "in all 2026-11: 7.05 MB" in said
    [full] = [e for e in json.loads(run("ledger", "cam-1", "--json"))["lines"] if not e["failures"]]
    assert full["received"] == 7_000_000
    assert "7.05 MB spent in 2026-11" in run("show", "cam-1")
