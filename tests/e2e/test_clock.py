"""A board that has thought it is the year 2000 since before it was enrolled, and a real fleet."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until
from tests.needs import library

pytestmark = pytest.mark.e2e
DEVICE = "cam-1"
OFF_S = 120.0


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    preload = library("faketime/libfaketime.so.1", "libfaketime")
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nexport LD_PRELOAD={preload} FAKETIME='@2000-01-01 00:00:00'\n"
        f'export FAKETIME_DONT_FAKE_MONOTONIC=1\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    made = Loop(tmp_path, agent_python=str(python))
    try:
        made.start_fleet()
        yield made
    finally:
        made.close()


def test_it_enrols_updates_and_its_telemetry_is_dated_by_the_fleet(loop: Loop) -> None:
    begun = time.time()
    loop.enroll(DEVICE)
    loop.start_agent(DEVICE)
    layout, _ = make_release(loop.folder / "1.0.0", "1.0.0")
    loop.client.push(layout.folder)
    ended = loop.finished(loop.roll_out("1.0.0"))
    assert ended["status"] == "completed", (ended["sentence"], loop.log(DEVICE))
    windows = until("telemetry", lambda: loop.client.telemetry(device=DEVICE))
    assert "2000-01-01" in loop.log(DEVICE)
    dates = [window["at"] or 0.0 for window in reversed(windows)]
    assert all(begun - OFF_S < at < time.time() + OFF_S for at in dates), dates
    assert dates == sorted(dates)
