"""The fleet's database comes back from a backup: what devices kept is sent again."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from tests.e2e.loop import until
from tests.faults.site import PATIENCE_S, Site

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_a_fleet_that_comes_back_from_a_backup_gets_again_what_it_has_lost(site: Site) -> None:
    before, backup = site.through(), back_up(site)
    site.settled()
    had = site.through()
    site.kill("fleet")
    restore(site, backup)
    assert before <= site.through() < had, "the backup is older than what was acknowledged"
    site.start_fleet()
    until("what the fleet had", lambda: site.through() >= had, PATIENCE_S)
    site.assert_nothing_lost()
    assert "older copy" in str(site.client.health()["frozen"])
    site.client.thaw("a test")
    site.settled()


def back_up(site: Site) -> Path:
    copy = site.folder / "backup.db"
    copy.unlink(missing_ok=True)
    with site.database() as source, contextlib.closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def restore(site: Site, backup: Path) -> None:
    path = site.folder / "fleet" / "fleet.db"
    for beside in ("", "-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    path.write_bytes(backup.read_bytes())
