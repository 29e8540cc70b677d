"""The pages of devices in a real browser: found among many, labelled, commanded, taken out."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fleet.console.conftest import Console, live
from tests.fleet.console.seeds_devices import HOSTILE, REASON

MANY = 1000


@pytest.fixture(scope="module", autouse=True)
def seeded(served: Console) -> None:
    served.seed("many", str(MANY))
    served.seed("site")


@pytest.fixture
def listed(console: Console, page: Page) -> Iterator[Page]:
    console.open(page, "/devices")
    expect(page.get_by_role("status")).to_contain_text("devices")
    yield page
    console.assert_clean()


def rows(page: Page) -> list[str]:
    found: list[str] = page.locator("tbody tr").evaluate_all("r => r.map(e => e.dataset.key)")
    return found


def test_devices_are_found_by_their_labels_and_the_address_remembers(
    console: Console, listed: Page
) -> None:
    expect(listed.locator("tbody tr")).to_have_count(100)
    listed.keyboard.press("/")
    listed.keyboard.type("site=north,line=3")
    listed.keyboard.press("Enter")
    expect(listed.get_by_role("status")).to_have_text(re.compile(r"^2 of 1,002 devices$"))
    assert rows(listed) == ["press-1", "press-2"]
    listed.wait_for_function("location.search.includes('selector=site%3Dnorth')")
    listed.reload()
    live(listed)
    expect(listed.get_by_role("status")).to_have_text("2 of 1,002 devices")
    listed.get_by_label("State").select_option("revoked")
    expect(listed.get_by_text("No device is like that.")).to_be_visible()


def test_a_selector_that_cannot_be_read_says_so(listed: Page) -> None:
    listed.get_by_label("Label selector").fill("site in (")
    listed.keyboard.press("Enter")
    expect(listed.locator("main [role=alert]").first).to_be_visible()
    listed.get_by_role("link", name="Clear").click()
    expect(listed.get_by_role("status")).to_have_text("1,002 devices")


def test_pages_follow_one_another(listed: Page) -> None:
    listed.get_by_role("button", name="Next").click()
    expect(listed.get_by_role("link", name="cam-00100")).to_be_visible()
    listed.get_by_role("button", name="Previous").click()
    expect(listed.get_by_role("link", name="cam-00000")).to_be_visible()


def test_labels_of_many_are_changed_after_their_number_is_typed(
    console: Console, page: Page
) -> None:
    console.open(page, "/devices?selector=site%3Dsouth")
    page.get_by_role("button", name="Change labels").click()
    asked = page.get_by_role("dialog", name="Change the labels of")
    asked.get_by_label("Labels", exact=True).fill("moved=yes, line-")
    asked.get_by_role("button", name="Go on").click()
    sure = page.get_by_role("alertdialog")
    expect(sure).to_contain_text("333 devices: set moved=yes and take away line.")
    go = sure.get_by_role("button", name="Change labels")
    expect(go).to_be_disabled()
    sure.get_by_label("Type 333 to confirm").fill("333")
    expect(go).to_be_enabled()
    go.click()
    expect(page.get_by_text("333 devices changed.")).to_be_visible()
    page.get_by_label("Label selector").fill("moved=yes,!line")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("333 of 1,002 devices")
    console.assert_clean()


def test_a_device_says_what_is_wanted_of_it_and_why_it_is_not_so(
    console: Console, page: Page
) -> None:
    console.open(page, "/devices/press-1")
    twin = page.get_by_label("Desired and reported", exact=True)
    expect(twin.locator("tr[data-key=digits]")).to_contain_text(f"rolled back: {REASON}")
    for tab, seen in (
        ("Charts", "Frames a second"),
        ("History", "digits:2.1.0 rolled back"),
        ("Evidence", "equal on 64 samples"),
        ("Data", "444 kB received"),
        ("Configuration", "telemetry_every_s"),
    ):
        page.get_by_role("link", name=tab, exact=True).click()
        page.wait_for_url(f"**tab={tab.lower()}")
        live(page)
        expect(page.locator("#main").get_by_text(re.compile(re.escape(seen))).first).to_be_visible()
    console.assert_clean()


def test_what_commands_bring_is_shown_and_stays_text(console: Console, page: Page) -> None:
    console.open(page, "/devices/press-1?tab=commands")
    expect(page.locator("pre.log")).to_contain_text(HOSTILE)
    picture = page.get_by_alt_text("What press-1 saw")
    expect(picture).to_be_visible()
    page.wait_for_function("document.querySelector('img.snapshot').naturalWidth === 320")
    assert "taken" not in page.title()
    page.get_by_role("button", name="Fetch the log").click()
    expect(page.locator("tbody tr").first).to_contain_text("pending")
    console.assert_clean()


def test_a_device_is_revoked_only_after_its_name_and_a_reason(console: Console, page: Page) -> None:
    console.open(page, "/devices/press-2")
    page.get_by_role("button", name="Revoke").click()
    sure = page.get_by_role("alertdialog")
    expect(sure).to_contain_text("1 device: it is let in no more")
    go = sure.get_by_role("button", name="Revoke")
    sure.get_by_label("Type press-2 to confirm").fill("press-2")
    expect(go).to_be_disabled()
    sure.get_by_label("Reason, for the audit log").fill("stolen")
    go.click()
    expect(page.locator("main .chip.bad")).to_have_text("revoked")
    console.assert_clean()


def test_what_is_typed_stays_while_the_list_changes(console: Console, page: Page) -> None:
    console.open(page, "/devices?name=cam-00005")
    typed = page.get_by_label("Label selector")
    for word, state in (("site=", "offline"), ("north", "online")):
        typed.press_sequentially(word)
        console.seed("stay" if state == "online" else "leave", "cam-00005")
        expect(page.locator("tbody tr")).to_contain_text(state)
    page.keyboard.press("Enter")
    page.wait_for_url("**site%3Dnorth*")
    console.assert_clean()


def test_a_question_stays_open_while_the_device_changes(console: Console, page: Page) -> None:
    console.open(page, "/devices/press-1")
    page.get_by_role("button", name="Restart").click()
    sure = page.get_by_role("alertdialog")
    sure.get_by_label("Type press-1 to confirm").fill("press-1")
    console.seed("leave", "press-1")
    expect(page.locator("#main .chip.warn")).to_have_text("offline")
    sure.get_by_label("Reason, for the audit log").fill("it hangs")
    sure.get_by_role("button", name="Restart").click()
    expect(page.get_by_text("press-1 was asked to restart.")).to_be_visible()
    console.assert_clean()


def test_a_viewer_sees_no_buttons_and_only_the_devices_of_its_scope(
    console: Console, browser: Browser
) -> None:
    with console.visit(browser, "viewer", "site=north") as page:
        console.open(page, "/devices?name=cam-00")
        expect(page.get_by_role("status")).to_contain_text("devices")
        assert "site=east" not in page.locator("table").inner_text()
        expect(page.get_by_role("button", name="Change labels")).to_have_count(0)
        expect(page.locator("input[type=checkbox]")).to_have_count(0)
        console.open(page, "/devices/press-1?tab=commands")
        expect(page.get_by_role("button", name="Restart")).to_have_count(0)
        expect(page.locator("pre.log")).to_have_count(0)
        console.assert_clean()
        page.goto(f"{console.url}/console/devices/cam-00002")
        expect(page.get_by_text("There is no device 'cam-00002'.")).to_be_visible()


def test_on_a_telephone_devices_are_cards(console: Console, browser: Browser) -> None:
    with console.visit(browser, narrow=True) as page:
        for path in ("/devices", "/devices/press-1", "/devices/press-1?tab=charts"):
            console.open(page, path)
            assert page.evaluate("document.documentElement.scrollWidth") == 375
    console.assert_clean()
