"""The pages of models and releases in a real browser: lineage, figures, signatures, the report."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fleet.console.conftest import Console, asked_of_api, live


@pytest.fixture(scope="module", autouse=True)
def seeded(served: Console, browser: Browser) -> None:
    """The site; before it, the empty pages have taught how to fill them."""
    with served.visit(browser) as page:
        for path, lesson in (
            ("/models", "edgeml releases push"),
            ("/compare", "edgeml releases push"),
            ("/devices", "edgeml fleet enroll"),
        ):
            served.open(page, path)
            expect(page.locator("main code").filter(has_text=lesson)).to_be_visible()
    served.assert_clean()
    served.seed("site")


def test_two_releases_are_chosen_and_compared(console: Console, page: Page) -> None:
    console.open(page, "/models")
    page.get_by_role("link", name="digits", exact=True).click()
    page.get_by_label("Choose 2.0.0").check()
    page.get_by_label("Choose 2.1.0").check()
    expect(page.get_by_role("link", name="Compare")).to_have_attribute("aria-disabled", "false")
    page.get_by_role("link", name="Compare").click()
    page.wait_for_url("**/compare?one=digits%3A2.0.0&other=digits%3A2.1.0")
    expect(page.get_by_text("-2.10 points").first).to_be_visible()
    expect(page.get_by_label("Made of", exact=True)).to_contain_text("another")
    page.get_by_label("First").select_option("digits:2.1.0")
    page.wait_for_url("**/console/compare?one=digits%3A2.1.0&other=digits%3A2.1.0")
    expect(page.get_by_label("Made of", exact=True)).not_to_contain_text("another")
    console.assert_clean()


def test_a_release_says_who_signed_it_and_what_it_was_made_of(console: Console, page: Page) -> None:
    console.open(page, "/releases/digits/2.1.0")
    expect(page.get_by_label("Signature", exact=True)).to_contain_text(
        "as targets: devices take it."
    )
    expect(page.get_by_label("Lineage")).to_contain_text("bbbbbbbbbbbb")
    expect(page.get_by_label("Variants", exact=True)).to_contain_text(
        "94.1 % (95 % interval 93.2 to"
    )
    expect(page.get_by_label("On devices")).to_contain_text("trial: fail, 1 device")


def test_the_report_is_shown_where_its_scripts_do_nothing(console: Console, page: Page) -> None:
    console.open(page, "/releases/digits/2.1.0")
    report = page.frame_locator("iframe.report")
    expect(report.locator("#proof")).to_have_text("int8 loses 0.2 points, at most 1 is allowed.")
    assert "taken" not in page.title()
    assert all("frame is sandboxed" in fault for fault in console.faults)
    assert page.locator("iframe.report").get_attribute("sandbox") == ""


def test_a_release_is_blocked_on_a_hardware_class_and_unblocked(
    console: Console, page: Page
) -> None:
    console.open(page, "/rollouts")
    blocks = page.get_by_label("Blocked releases")
    expect(blocks).to_contain_text("edgeml rollout block")
    blocks.get_by_role("button", name="Block a release").click()
    asked = page.get_by_role("dialog", name="Block a release")
    do = asked.get_by_role("button", name="Block", exact=True)
    expect(do).to_be_disabled()
    for label, option in (("Release", "digits:2.1.0"), ("Hardware class", re.compile("x86_64"))):
        asked.locator("label").filter(has_text=label).click()
        page.get_by_role("option", name=option).first.click()
    asked.get_by_label("Reason, for the audit log").fill("it forgets the eights")
    do.click()
    expect(blocks).to_contain_text("it forgets the eights")
    (block,) = asked_of_api(page, "/api/v1/rollouts/blocks")
    assert (block["version"], block["reason"]) == ("2.1.0", "it forgets the eights")
    blocks.get_by_role("link", name="digits:2.1.0").click()
    expect(page.get_by_label("On devices")).to_contain_text("Blocked on x86_64")
    page.go_back()
    live(page)
    blocks.get_by_role("button", name="Unblock digits:2.1.0").click()
    sure = page.get_by_role("alertdialog")
    sure.get_by_label("Reason, for the audit log").fill("trained again")
    sure.get_by_role("button", name="Unblock").click()
    expect(blocks).to_contain_text("edgeml rollout block")
    assert asked_of_api(page, "/api/v1/rollouts/blocks") == []
    assert not [fault for fault in console.faults if "frame is sandboxed" not in fault]


def test_who_may_only_look_is_not_offered_a_rollout(console: Console, browser: Browser) -> None:
    with console.visit(browser, "viewer") as page:
        console.open(page, "/releases/digits/2.0.0")
        expect(page.get_by_role("link", name="Devices that run it")).to_be_visible()
        expect(page.get_by_role("link", name="Roll it out")).to_have_count(0)


def test_a_release_that_is_not_there_says_what_to_do(console: Console, page: Page) -> None:
    page.goto(f"{console.url}/console/releases/digits/9.9.9")
    expect(page.locator("#main")).to_contain_text("There is no release digits:9.9.9.")
    expect(page.locator("#main")).to_contain_text("edgeml releases push FOLDER")
