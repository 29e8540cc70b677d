"""A device whose clock jumps by years, there and back, while it runs and updates."""

import os
import time
from collections.abc import Iterator

import pytest

from tests.e2e.loop import until
from tests.faults.site import DEVICE, PATIENCE_S, Site
from tests.needs import library

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
OFF_S = 300.0


class Clock:
    """The wall clock of the device's process; seconds since the boot go on as they do."""

    def __init__(self, site: Site) -> None:
        self._file = site.folder / "clock"
        self.jump("+0")
        site.kill(DEVICE)
        site.environment = {
            **os.environ,
            "LD_PRELOAD": str(library("faketime/libfaketime.so.1", "libfaketime")),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        site.start_agent()

    def jump(self, by: str) -> None:
        """Be off by so much from now on."""
        self._file.write_text(f"{by}\n")


@pytest.fixture
def clock(site: Site) -> Iterator[Clock]:
    yield Clock(site)
    site.environment = None
    site.restart_agent()


@pytest.mark.parametrize("jump", ["+3650d", "-3650d"])
def test_a_clock_that_jumps_stops_no_update_and_dates_nothing_wrong(
    site: Site, clock: Clock, jump: str
) -> None:
    site.settled()
    since = site.through()
    clock.jump(jump)
    site.settled()
    clock.jump("+0")
    site.settled()

    def dates() -> list[float]:
        with site.database() as database:
            return [
                float(at or 0)
                for (at,) in database.execute(
                    "SELECT at FROM records WHERE kind = 'telemetry' AND seq > ?", [since]
                )
            ]

    until("telemetry", lambda: len(dates()) > 4, PATIENCE_S)
    assert all(abs(at - time.time()) < OFF_S for at in dates()), dates()
