"""The pages before the console in a real browser: what it sends, and what its policy lets it do."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from fleet.roles import Role
from fleet.services import Caller, users
from tests import needs
from tests.fleet.conftest import Listening

FIRST, PASSWORD = "four words of nobody", "and other four words"


@pytest.fixture
def page() -> Iterator[Page]:
    path = needs.program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        made = browser.new_page()
        made.set_default_timeout(60_000)
        yield made
        browser.close()


def test_somebody_logs_in_changes_the_password_and_logs_out(
    shared_fleet: Listening, page: Page
) -> None:
    users.create(shared_fleet.services, Caller("a test"), "alice", Role.VIEWER, password=FIRST)
    faults: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda m: faults.append(m.text) if "Security Policy" in m.text else None)
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto(f"{shared_fleet.operators}/login")
    page.get_by_label("User").fill("alice")
    page.get_by_label("Password").fill(f"{FIRST}!")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    page.get_by_label("User").fill("alice")
    page.get_by_label("Password").fill(FIRST)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Present password").fill(FIRST)
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_role("button", name="Change it").click()
    page.wait_for_url(f"{shared_fleet.operators}/")
    page.goto(f"{shared_fleet.operators}/logout")
    expect(page.get_by_text("You are logged in as alice.")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{shared_fleet.operators}/login")
    assert page.goto(f"{shared_fleet.operators}/logout").status == 401  # type: ignore[union-attr]
    assert faults == []
    assert hosts == {shared_fleet.operators.split("//")[1]}
