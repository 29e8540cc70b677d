"""The frame and the overview in a real browser: what is shown, kept live, asked for, kept out."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fleet.console.conftest import (
    Console,
    assert_accessible,
    live,
    serving,
)
from tests.fleet.console.seeds import HALTED, SENTENCE


@pytest.fixture(scope="module", autouse=True)
def seeded(served: Console) -> None:
    served.seed("story")


def test_the_fleet_at_one_glance(console: Console, page: Page) -> None:
    console.open(page, "/")
    tiles = page.locator(".tile")
    expect(tiles.filter(has_text="Devices online")).to_contain_text("57 of 60")
    expect(tiles.filter(has_text="Alerts")).to_contain_text("1 critical")
    expect(tiles.filter(has_text="Inferences")).to_contain_text("/s")
    expect(page.get_by_test_id("sentence").first).to_have_text(SENTENCE)
    expect(page.get_by_test_id("sentence").nth(1)).to_have_text(HALTED)
    expect(page.get_by_role("link", name="Alerts: 2")).to_be_visible()
    expect(page.get_by_label("Devices by hardware class")).to_contain_text("cortex-m55-u55")
    expect(page.get_by_label("Devices by release")).to_contain_text("60 devices")
    expect(page.locator("[role=img] canvas")).to_have_count(2)
    console.assert_clean()


def test_every_page_of_the_navigation_opens_with_the_keyboard(console: Console, page: Page) -> None:
    console.open(page, "/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("n")
    page.wait_for_url("**/console/monitoring*")
    live(page)
    expect(page.locator("[aria-current=page]")).to_contain_text("Monitoring")
    console.assert_clean()


def test_the_theme_is_remembered(console: Console, browser: Browser) -> None:
    with console.visit(browser) as page:
        console.open(page, "/users")
        page.get_by_role("button", name="Theme: as the system").click()
        expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
        page.wait_for_function("document.cookie.includes('edgeml_theme=dark')")
        page.reload()
        live(page)
        expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
        expect(page.locator("body")).to_have_class("desktop no-touch body--dark")


def test_an_injected_script_does_not_run_and_nothing_can_be_sent_elsewhere(
    console: Console, page: Page
) -> None:
    console.open(page, "/users")
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit = 1\">')"
    )
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.hit = 2';"
        " document.body.append(s); }"
    )
    refused = page.evaluate(
        "fetch('http://192.0.2.1/', {mode: 'no-cors'}).then(() => 'sent', () => 'refused')"
    )
    assert refused == "refused"
    assert page.evaluate("window.hit") is None


def test_somebody_sees_her_own_devices_alone(console: Console, browser: Browser) -> None:
    with console.visit(browser, "viewer", "site=north") as page:
        console.open(page, "/")
        expect(page.locator(".tile").filter(has_text="Devices online")).to_contain_text("of 20")
        page.goto(f"{console.url}/console/devices/cam-00001")
        expect(page.get_by_role("alert").filter(has_text="There is no device")).to_be_visible()


def test_an_open_page_notices_that_its_session_has_ended(
    console: Console, browser: Browser
) -> None:
    with console.visit(browser) as page:
        console.open(page, "/users")
        page.evaluate("fetch('/api/v1/logout', {method: 'POST'})")
        expect(page.get_by_role("alert").filter(has_text="Your session has ended")).to_be_visible()
        page.get_by_role("link", name="Log in again").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.goto(f"{console.url}/console/")
        expect(page.get_by_text("You are not logged in.")).to_be_visible()


def test_a_page_says_that_the_fleet_is_away_and_goes_on_when_it_is_back(
    browser: Browser, tmp_path: Path
) -> None:
    with serving(tmp_path) as first:
        context = browser.new_context()
        page = context.new_page()
        page.goto(first.link())
        live(page)
        expect(page.get_by_text("No rollout yet.")).to_be_visible()
        expect(page.get_by_text("edgeml rollout create digits:1.0.0")).to_be_visible()
        assert_accessible(page)
    away = page.get_by_role("alert").filter(has_text="The fleet does not answer")
    expect(away).to_be_visible()
    with serving(tmp_path, int(first.url.rpartition(":")[2])) as second:
        second.seed("story")
        expect(page.locator(".tile").filter(has_text="Devices online")).to_contain_text("57 of 60")
        expect(away).to_have_count(0)
        context.close()


def test_it_changes_without_a_reload(console: Console, page: Page) -> None:
    console.open(page, "/")
    page.evaluate("window.untouched = true")
    console.seed("finish")
    expect(page.get_by_text("60 devices and held 9 gates").first).to_be_visible()
    expect(page.locator("article").filter(has_text="1.2.0").locator(".chip")).to_have_text(
        "completed"
    )
    assert page.evaluate("window.untouched")


def test_a_login_leads_to_the_page_that_was_asked_for(console: Console, browser: Browser) -> None:
    password = console.ask("user alice viewer")
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{console.url}/console/monitoring?quick=6h")
    assert_accessible(page)
    page.get_by_label("User").fill("alice")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/console/monitoring?quick=6h")
    expect(page.get_by_role("link", name="alice")).to_be_visible()
    context.close()


def test_a_page_that_is_not_there_says_so(console: Console, page: Page) -> None:
    answer = page.goto(f"{console.url}/console/nowhere")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("alert")).to_contain_text("There is no page 'nowhere'.")
