"""One site for the faults of a whole run: a fleet and a device that have run a first release."""

from collections.abc import Iterator

import pytest

from tests.faults.site import Site


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    try:
        made.begin()
        yield made
    finally:
        made.close()


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """The shared site, with good links before and after."""
    shared.http.heal()
    shared.mqtt.heal()
    shared.revive()
    yield shared
    shared.http.heal()
    shared.mqtt.heal()
