"""Mosquitto restarted in the middle of an update, with what it kept and without."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.site import Site
from tests.sim.mosquitto import Mosquitto

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


class Brokered(Site):
    """A site whose broker is Mosquitto."""

    mosquitto: Mosquitto


@pytest.fixture(params=[True, False], ids=["keeps", "forgets"])
def brokered(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Brokered]:
    mosquitto = Mosquitto(tmp_path / "broker", persistent=request.param)
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    made = Brokered(tmp_path, broker=(("--broker", url), mosquitto.port))
    made.mosquitto = mosquitto
    try:
        made.begin()
        yield made
    finally:
        made.close()
        mosquitto.stop()


def test_a_broker_that_comes_back_has_cost_nothing(brokered: Brokered) -> None:
    for end in (Mosquitto.stop, Mosquitto.kill):
        before = brokered.version
        update = brokered.update()
        update.reached("downloading")
        end(brokered.mosquitto)
        brokered.goes_on_in({before, update.version})
        brokered.mosquitto.start()
        brokered.settled(update)
