"""Audit, users, tokens and settings in a browser, over a seeded fleet."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fleet.console.conftest import Console, asked_of_api, assert_accessible, live


@pytest.fixture(scope="module", autouse=True)
def seeded(served: Console) -> None:
    for name in ("story", "access", "history"):
        served.seed(name)


def test_the_audit_log_is_filtered_by_its_address_and_its_chain_is_checked(
    console: Console, page: Page
) -> None:
    console.open(page, "/audit?action=rollout&who=olga")
    expect(page.get_by_text("The chain of hashes holds")).to_be_visible()
    expect(page.get_by_text("retrained on blur")).to_be_visible()
    assert page.get_by_text("the canary looks good").count() == 0
    page.get_by_label("Who, such as").fill("anna")
    expect(page.get_by_text("the canary looks good")).to_be_visible()
    expect(page.get_by_text("retrained on blur")).to_have_count(0)
    page.wait_for_function("location.search.includes('who=anna')")
    page.get_by_label("Who, such as").fill("nobody")
    expect(page.get_by_text("Nothing that was done is like that.")).to_be_visible()
    page.get_by_label("Who, such as").fill("")
    page.get_by_text("the canary looks good").click()
    expect(page.get_by_text("Hash of the entry before")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_text("Hash of the entry before")).to_have_count(0)
    console.assert_clean()


def test_an_admin_makes_a_user_and_disables_one_by_its_name(console: Console, page: Page) -> None:
    console.open(page, "/users")
    page.get_by_role("button", name="New user").click()
    page.get_by_label("Name", exact=True).fill("paula")
    page.get_by_role("button", name="Make the user").click()
    expect(page.get_by_text("The password of paula")).to_be_visible()
    page.get_by_role("button", name="I have it").click()
    page.get_by_role("button", name="Disable: paula").click()
    sure = page.get_by_role("alertdialog").get_by_role("button", name="Disable")
    page.get_by_label("Reason, for the audit log").fill("a trial")
    assert sure.is_disabled()
    page.get_by_label("Type paula to confirm").fill("paula")
    assert_accessible(page)
    sure.click()
    expect(page.get_by_role("button", name="Enable: paula")).to_be_visible()
    expect(page.locator(".q-notification")).to_have_count(0)  # a toast fades
    console.assert_clean()


def test_a_viewer_has_no_button_for_what_they_may_not_do(
    console: Console, browser: Browser
) -> None:
    with console.visit(browser, "viewer", "site=north") as page:
        console.open(page, "/users")
        expect(page.get_by_text("Your API tokens")).to_be_visible()
        assert page.get_by_role("button", name="New user").count() == 0
        assert page.get_by_text("olga/ci").count() == 0
        console.open(page, "/settings")
        trust = page.get_by_label("Trust: who signs, and until when")
        expect(trust.get_by_text("timestamp", exact=True)).to_be_visible()
        assert page.get_by_role("button", name=re.compile("Save|New webhook|Renew")).count() == 0
        console.open(page, "/rollouts")
        assert page.get_by_text("New rollout").count() == 0
        console.assert_clean()
        console.open(page, "/rollouts/new")  # by its address, all the same
        expect(page.get_by_role("alert")).to_contain_text("it needs the role operator")


def test_settings_show_trust_retention_prices_rules_and_webhooks(
    console: Console, page: Page
) -> None:
    console.open(page, "/settings")
    expect(page.get_by_text("30 days (--keep-days)")).to_be_visible()
    expect(page.get_by_text("https://203.0.113.7/hook")).to_be_visible()
    page.get_by_label("A device is silent for, s").fill("1200")
    page.get_by_role("button", name="Save the rules").click()
    expect(page.get_by_text("The rules are saved.")).to_be_visible()
    page.get_by_label("prices.toml").fill('currency = "EUR"\n[[prices]]\nper_mb = "much"')
    page.get_by_role("button", name="Save the prices").click()
    expect(page.get_by_text("The prices cannot be used.")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".q-notification")).to_have_count(0)  # a toast fades
    console.assert_clean()


def test_a_data_budget_is_changed_after_its_plan_and_rolled_out(
    console: Console, page: Page
) -> None:
    console.open(page, "/settings")
    budgets = page.get_by_label("Data budgets", exact=True)
    expect(budgets).to_contain_text("all devices: no bound")
    page.get_by_role("button", name="Change the data budget of fleet").click()
    asked = page.get_by_role("dialog", name="Data budget of fleet")
    asked.get_by_label("A month, MB").fill("40")
    asked.get_by_label("The month begins on day").fill("15")
    asked.get_by_role("button", name="Go on").click()
    sure = page.get_by_role("alertdialog")
    expect(sure).to_contain_text("60 devices are given it, in waves.")
    assert_accessible(page)
    sure.get_by_label("Type 60 to confirm").fill("60")
    sure.get_by_label("Reason, for the audit log").fill("the new contract")
    sure.get_by_role("button", name="Change it").click()
    page.wait_for_url("**/rollouts/configuration-fleet-1-*")
    live(page)
    expect(page.get_by_label("What happened (UTC)")).to_contain_text("the new contract")
    (revision,) = asked_of_api(page, "/api/v1/configurations/fleet")["revisions"]
    budget = {"month_bytes": 40_000_000, "month_begins": 15, "when_spent": "wait"}
    assert revision["settings"]["data_budget"] == budget
    console.assert_clean()
