"""Links that delay, cut, throttle, corrupt, half-close or swallow, while a device updates."""

from collections.abc import Callable

import pytest

from tests.faults.site import Site, every

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def both(site: Site, **fault: float) -> None:
    for link in (site.http, site.mqtt):
        for name, value in fault.items():
            setattr(link, name, value)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"delay_s": 0.1}, id="delay"),
        pytest.param({"bytes_per_s": 20_000.0}, id="throttle"),
    ],
)
def test_a_slow_link_only_slows_an_update(site: Site, fault: dict[str, float]) -> None:
    both(site, **fault)
    update = site.update()
    assert update.completed(), update.found
    site.settled(update)


@pytest.mark.parametrize("fault", ["cut", "half_close"])
def test_an_update_comes_through_a_link_that_breaks_again_and_again(site: Site, fault: str) -> None:
    update = site.update()

    def strike() -> None:
        getattr(site.http, fault)()
        getattr(site.mqtt, fault)()

    broken = site.http.broken + site.mqtt.broken
    every("traffic", strike, 8, site)
    assert site.http.broken + site.mqtt.broken > broken
    site.settled(update)


def test_wrong_bits_on_the_way_install_nothing_that_is_wrong(site: Site) -> None:
    before = site.version
    both(site, corrupt_every=3_000)
    broken = site.http.broken + site.mqtt.broken
    update = site.update()
    every("wrong bits", lambda: None, 10, site)
    site.goes_on(before) if update.phase in {"", "None"} else None
    both(site, corrupt_every=0)
    assert site.http.broken + site.mqtt.broken > broken
    site.settled(update)


def silent(site: Site) -> Callable[[], None]:
    both(site, silent=True)
    return lambda: both(site, silent=False)


def away(site: Site) -> Callable[[], None]:
    both(site, down=True)
    site.http.cut()
    site.mqtt.cut()
    return lambda: both(site, down=False)


@pytest.mark.parametrize("vanish", [silent, away])
def test_a_device_without_a_link_goes_on_and_sends_all_when_it_is_back(
    site: Site, vanish: Callable[[Site], Callable[[], None]]
) -> None:
    come_back = vanish(site)
    update = site.update()
    site.goes_on(site.version)
    come_back()
    site.settled(update)
