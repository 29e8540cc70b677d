"""Monitoring in a real browser: what is chosen is drawn, is in the address, and can be zoomed."""

import re
import urllib.parse

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fleet.console.conftest import Console

# What a live refresh does in the browser: the whole chart anew, and so another number of series.
REDRAW = """(box) => {
  const { chart, options } = getElement(Number(box.id.slice(1)));
  chart.setOption(options, { notMerge: true });
}"""


@pytest.fixture(scope="module", autouse=True)
def seeded(served: Console) -> None:
    served.seed("story")


def drawn(page: Page) -> None:
    """Wait until every chart has lines."""
    expect(page.locator("[role=img] canvas")).to_have_count(6)
    page.wait_for_function(
        "[...document.querySelectorAll('[role=img]')].every((box) => {"
        "  const chart = getElement(Number(box.id.slice(1))).chart;"
        "  return chart && chart.getOption().series.length > 0; })"
    )


def test_series_are_kept_apart_by_what_is_chosen(console: Console, page: Page) -> None:
    console.open(page, "/monitoring")
    drawn(page)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("digits:1.")
    page.get_by_label("Kept apart by").select_option("label:site")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="north")).to_have_count(1)
    page.get_by_role("combobox", name="Hardware class").last.select_option("cortex-m55-u55")
    page.get_by_label("Labels").fill("site in (north, south)")
    page.get_by_label("Labels").press("Enter")
    expect(rows).to_have_count(2)
    console.assert_clean()


def test_what_is_chosen_is_in_the_address(console: Console, page: Page) -> None:
    console.open(page, "/monitoring")
    page.get_by_label("Kept apart by").select_option("hardware_class")
    page.get_by_role("button", name="15 min").click()
    expect(page.locator("tbody tr")).to_have_count(4)
    page.wait_for_url(re.compile("quick=15m"))
    page.reload()
    expect(page.get_by_role("button", name="15 min")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("tbody tr")).to_have_count(4)


def test_the_numbers_are_those_of_the_api(console: Console, page: Page) -> None:
    console.open(page, "/monitoring?by=release&release=digits:1.0.0")
    expect(page.locator("tbody tr")).to_have_count(1)
    cells = page.locator("tbody tr > *").all_text_contents()
    code = page.locator("code").filter(has_text="/api/v1/metrics").text_content() or ""
    path = code[code.index("/api/v1") : -1]
    found = page.evaluate("(path) => fetch(path).then((answer) => answer.json())", path)
    assert [f"{one['total']['inferred']:,}" for one in found["series"]] == [cells[1]]


def test_a_drag_over_a_chart_zooms_in_and_a_quick_range_leads_back(
    console: Console, page: Page
) -> None:
    console.open(page, "/monitoring")
    drawn(page)
    chart = page.locator("[role=img]").first
    box = chart.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    chart.evaluate(REDRAW)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=3)
    chart.evaluate(REDRAW)
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=3)
    page.mouse.up()
    page.wait_for_url(re.compile("from="))
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(page.url).query)
    assert 300 <= float(query["to"][0]) - float(query["from"][0]) < 1500
    expect(page.locator("[aria-pressed=true]")).to_have_count(0)
    page.get_by_role("button", name="Zoom out").click()
    page.get_by_role("button", name="1 h").click()
    page.wait_for_url(re.compile(r"monitoring$"))


def test_a_wrong_question_is_answered_with_what_would_be_right(
    console: Console, page: Page
) -> None:
    console.open(page, "/monitoring?selector=site%20near%20north")
    expect(page.get_by_role("alert").filter(has_text="near")).to_be_visible()


def test_somebody_sees_the_telemetry_of_her_own_site(console: Console, browser: Browser) -> None:
    with console.visit(browser, "viewer", "site=north") as page:
        console.open(page, "/monitoring?by=label:site")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr")).to_contain_text("north")
