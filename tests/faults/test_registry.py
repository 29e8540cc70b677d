"""A registry replaced by a liar: whatever it says, nothing wrong is installed."""

from collections.abc import Iterator

import pytest

from tests.e2e.loop import until
from tests.faults.site import MODEL, PATIENCE_S, Site
from tests.sim import liar as lies
from tests.sim.liar import Liar, Lie

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
LIES = {
    "wrong-bytes": lies.wrong_bytes,
    "too-short": lies.too_short,
    "too-long": lies.too_long,
    "endless": lies.endless,
    "slow-loris": lies.slow,
    "redirect-loop": lies.redirect_loop,
    **{str(code): lies.status(code) for code in (404, 410, 416, 500, 503)},
}


@pytest.fixture
def liar(site: Site) -> Iterator[Liar]:
    with Liar(site.ports[1]) as made:
        site.http.lead_to(made.port)
        yield made
        site.http.lead_to(site.ports[1])


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lie_of_the_registry_installs_nothing_and_the_truth_does(
    site: Site, liar: Liar, lie: Lie
) -> None:
    before = site.version
    liar.lie = lie
    update = site.update()
    until("a lie that was told", lambda: liar.told > 0, PATIENCE_S)
    site.goes_on(before)
    running = site.state.models[MODEL].running
    assert running is not None
    assert running.release_version == before
    liar.lie = None
    site.settled(update)
