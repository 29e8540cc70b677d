"""A board that comes up with a wrong clock and no fleet: it runs, and dates what it recorded."""

import sqlite3
import time
from pathlib import Path

import pytest

from cloud_sync.messages import Phase, RecordKind
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene
from tests.needs import library

OFF_S = 120.0


@pytest.fixture(params=["2000-01-01 00:00:00", "2040-06-01 00:00:00"])
def wrong_clock(request: pytest.FixtureRequest) -> dict[str, str]:
    preload = library("faketime/libfaketime.so.1", "libfaketime")
    # What counts seconds since the boot is right on every board: only the time of day is not.
    return {
        "LD_PRELOAD": str(preload),
        "FAKETIME": f"@{request.param}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def waiting(data: Path) -> int:
    """How many windows of telemetry are in the outbox."""
    with sqlite3.connect(f"file:{data / 'outbox.db'}?mode=ro", uri=True) as database:
        [[count]] = database.execute("SELECT count(*) FROM records WHERE kind = 'telemetry'")
    database.close()
    return int(count)


def test_it_runs_from_boot_and_dates_its_records_when_it_learns_the_time(
    scene: Scene, wrong_clock: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed")
        agent.stop()
    scene.fleet.stop()
    before = set(scene.device.records)
    kept = waiting(scene.data)
    begun = time.time()
    for name, value in wrong_clock.items():
        monkeypatch.setenv(name, value)
    with AgentProcess(scene.config):
        eventually(lambda: waiting(scene.data) >= kept + 4, what="telemetry without a fleet")
        scene.fleet.start()
        scene.want(scene.release("1.0.1", seed=1))
        eventually(lambda: scene.device.phase(MODEL, "1.0.1") is Phase.COMMITTED, what="committed")

    fresh = [record for key, record in sorted(scene.device.records.items()) if key not in before]
    windows = [record for record in fresh if record.kind == RecordKind.TELEMETRY][kept:]
    assert len(windows) >= 4
    assert all(begun - OFF_S < (record.at or 0.0) < time.time() + OFF_S for record in fresh)
    dates = [record.at or 0.0 for record in windows]
    assert all(begun - OFF_S < at < time.time() + OFF_S for at in dates), dates
    assert dates == sorted(dates)
    assert [r.monotonic for r in windows] == sorted(r.monotonic for r in windows)
