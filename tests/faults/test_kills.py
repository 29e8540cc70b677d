"""`kill -9` of the device at the steps of an update, and of the fleet in the middle of one."""

import os
import signal

import pytest

from edge_agent.failpoints import NAMES
from tests.e2e.loop import until
from tests.faults.site import DEVICE, PATIENCE_S, Site

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
# tests/edge_agent/test_kill.py has every one of them for each run of the tests.
OFTEN = ("download-bytes:kill", "swap:kill", "journal-after:kill:3", "collect:kill")
RARE = tuple(f"{name}:kill" for name in NAMES if f"{name}:kill" not in OFTEN)


@pytest.mark.parametrize(
    "failpoint", [*OFTEN, *(pytest.param(name, marks=pytest.mark.nightly) for name in RARE)]
)
def test_kill_9_of_the_device_at(site: Site, failpoint: str) -> None:
    site.kill(DEVICE)
    site.environment = {**os.environ, "EDGEML_FAILPOINT": failpoint}
    site.start_agent()
    site.environment = None
    update = site.update()
    until("the kill", lambda: site.status(DEVICE) == -signal.SIGKILL, PATIENCE_S)
    site.start_agent()
    site.settled(update)


@pytest.mark.parametrize("phase", ["downloading", "trial"])
def test_kill_9_of_the_fleet_while_the_device_is(site: Site, phase: str) -> None:
    if phase == "downloading":
        site.http.bytes_per_s = 3000.0
    before = site.version
    update = site.update()
    update.reached(phase)
    site.kill("fleet")
    site.http.heal()
    site.goes_on_in({before, update.version})
    site.start_fleet()
    site.settled(update)
