"""What holds for every page: accessible in both themes, fits a telephone, asks nobody else.

And every figure of it can be had through the API, by the routes that the documentation names.
"""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fleet.console.conftest import (
    NARROW,
    WIDE,
    Console,
    assert_accessible,
    photograph,
    themed,
)
from tests.fleet.console.figures import unknown

DEVICE = "/devices/press-1"
TABS = ("charts", "history", "evidence", "data", "commands", "configuration")
PAGES = {
    "overview": "/",
    "devices": "/devices",
    "device": DEVICE,
    **{f"device-{tab}": f"{DEVICE}?tab={tab}" for tab in TABS},
    "models": "/models",
    "model": "/models/digits",
    "release": "/releases/digits/2.1.0",
    "compare": "/compare?one=digits%3A2.0.0&other=digits%3A2.1.0",
    "rollouts": "/rollouts",
    "rollout": "/rollouts/digits-1.1.0-ab12cd",
    "new-rollout": "/rollouts/new",
    "monitoring": "/monitoring",
    "audit": "/audit",
    "users": "/users",
    "settings": "/settings",
}


@pytest.fixture(scope="module", autouse=True)
def seeded(served: Console) -> None:
    for name in ("story", "site", "access", "history"):
        served.seed(name)


def test_every_page_is_for_everybody_and_keeps_to_its_fleet(console: Console, page: Page) -> None:
    """One test, so that one worker opens them all in one browser on one fleet."""
    for name, path in PAGES.items():
        try:
            _check(console, page, path)
            assert unknown(page, name) == []
        except AssertionError as error:
            error.add_note(f"on the page {path}")
            raise
        photograph(page, name)


def _check(console: Console, page: Page, path: str) -> None:
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    console.open(page, path)
    expect(page.locator("main")).to_have_count(1)
    expect(page.locator("#main")).not_to_be_empty()
    themed(page, "light")
    assert_accessible(page)
    themed(page, "dark")
    assert_accessible(page, "color-contrast")
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    page.wait_for_function("document.documentElement.scrollWidth <= 375")
    assert not [fault for fault in console.faults if "frame is sandboxed" not in fault]
    assert console.hosts == {console.url.split("//")[1]}


def test_the_way_in_and_out_is_for_everybody(console: Console, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    console.watch(page)
    page.goto(f"{console.url}/login")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        assert_accessible(page)
    page.goto(console.link())
    page.goto(f"{console.url}/logout")
    assert_accessible(page)
    console.assert_clean()
    context.close()
