"""The console in a real browser, over scenes: what is shown, said, asked for, and kept out."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.fleet.console.scenes import HALTED, SOAKING

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ROOT = Path(__file__).parents[3]


@dataclass
class Console:
    """A served console, and a page on it that notes whatever a clean page does not do."""

    url: str
    folder: Path
    process: subprocess.Popen[str]
    faults: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def show(self, scene: str) -> None:
        """Change the fleet under the open pages."""
        (self.folder / "scene").write_text(scene)

    def link(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("link\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def watch(self, page: Page) -> None:
        page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        page.on("websocket", lambda socket: self.hosts.add(socket.url.split("/")[2]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        assert os.environ.get("CI") != "true", "Chromium is missing: apt-get install chromium"
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.console.serve", str(folder), "story"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    yield Console(process.stdout.readline().strip(), folder, process)
    process.stdin.close()
    assert process.wait(15) == 0
    process.stdout.close()


@pytest.fixture
def console(served: Console) -> Console:
    served.show("story")
    served.faults.clear()
    served.hosts.clear()
    return served


@pytest.fixture
def page(console: Console, browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    console.watch(made)
    made.goto(console.link())
    expect(made.get_by_text("2 of 3 devices are online")).to_be_visible()
    yield made
    context.close()


def test_the_page_says_why_each_rollout_stands_where_it_stands(page: Page) -> None:
    sentences = page.get_by_test_id("sentence").all_text_contents()
    assert sentences[:2] == [SOAKING, HALTED]


def test_it_is_clean_and_asks_no_other_host(page: Page, console: Console) -> None:
    page.get_by_text("Theme:").click()
    page.locator("#rollout-digits-1\\.1\\.0-ab12cd summary").click()
    expect(page.get_by_text("3% of 60 results").last).to_be_visible()
    assert console.faults == []
    assert console.hosts == {console.url.split("//")[1]}


def test_it_changes_without_a_reload(page: Page, console: Console) -> None:
    page.evaluate("window.untouched = true")
    console.show("empty")
    expect(page.get_by_text("edgeml rollout create digits:1.0.0")).to_be_visible()
    expect(page.get_by_text("edgeml fleet enroll cam-1 --label site=north")).to_be_visible()
    expect(page.get_by_text("edgeml releases push")).to_be_visible()
    console.show("story")
    expect(page.get_by_text("cam-3").first).to_be_visible()
    assert page.evaluate("window.untouched")
    assert console.faults == []


def test_what_the_reader_opened_stays_open_when_it_is_drawn_again(
    page: Page, console: Console
) -> None:
    old = page.locator("#rollout-digits-1\\.0\\.0-ab12cd")
    old.locator("summary").click()
    expect(old).to_have_attribute("open", "")
    console.show("halted")
    expect(page.get_by_text(SOAKING)).to_have_count(0)
    expect(old).to_have_attribute("open", "")


def test_a_rollout_that_has_ended_folds_when_another_is_the_latest(
    page: Page, console: Console
) -> None:
    halted = page.locator("#rollout-digits-1\\.1\\.0-ab12cd")
    console.show("halted")
    expect(halted).to_have_attribute("open", "")
    console.show("story")
    expect(page.get_by_text(SOAKING)).to_be_visible()
    expect(halted).not_to_have_attribute("open", "")


def test_text_from_devices_and_operators_stays_text(page: Page, console: Console) -> None:
    page.on("dialog", lambda dialog: console.faults.append(dialog.message))
    console.show("hostile")
    expect(page.get_by_test_id("sentence").first).to_have_text(re.compile("<script>alert"))
    assert page.locator("main img, main script").count() == 0
    assert console.faults == []


def test_a_script_that_was_injected_all_the_same_does_not_run(page: Page, console: Console) -> None:
    page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'window.injected = true';
          document.body.append(script);
          document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="injected = true">');
        }"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.injected") is None
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'kept')") == "kept"
    assert any("Content Security Policy" in fault for fault in console.faults)


def test_without_a_session_there_is_nothing_to_see(console: Console, browser: Browser) -> None:
    context = browser.new_context()
    stranger = context.new_page()
    for path in ("/", "/console/", "/?token=wrong", "/console/_nicegui_ws/socket.io/"):
        answer = stranger.goto(f"{console.url}{path}")
        assert answer is not None
        assert answer.status == 401
        assert "cam-1" not in stranger.content()
    context.close()


def test_a_link_logs_in_once_and_its_cookie_is_kept_from_scripts(
    console: Console, browser: Browser
) -> None:
    link = console.link()
    first, second = browser.new_context(), browser.new_context()
    page = first.new_page()
    page.goto(link)
    assert page.url == f"{console.url}/console/"
    (session,) = (c for c in first.cookies() if c["name"] == "edgeml_session")
    assert session["httpOnly"]
    assert session["sameSite"] in {"Lax", "Strict"}
    assert "edgeml_session" not in page.evaluate("document.cookie")
    again = second.new_page().goto(link)
    assert again is not None
    assert again.status == 401
    first.close()
    second.close()


def test_an_expired_or_forged_session_ends(console: Console, browser: Browser) -> None:
    context = browser.new_context()
    context.add_cookies(
        [{"name": "edgeml_session", "value": "9999999999.x.forged", "url": console.url}]
    )
    answer = context.new_page().goto(f"{console.url}/console/")
    assert answer is not None
    assert answer.status == 401
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("scene", ["story", "many", "trouble", "empty"])
def test_it_fits_a_telephone_in_both_themes(
    console: Console, browser: Browser, scheme: str, scene: str
) -> None:
    console.show(scene)
    context = browser.new_context(
        viewport={"width": 375, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    console.watch(page)
    page.goto(console.link())
    headline = {"many": "980 of 1,000 devices are online", "empty": "No device yet"}
    expected = headline.get(scene, "2 of 3 devices are online")
    expect(page.locator(".headline")).to_contain_text(expected)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    is_dark = page.evaluate("document.body.classList.contains('body--dark')")
    assert is_dark is (scheme == "dark")
    assert console.faults == []
    context.close()


def test_the_chosen_theme_is_remembered(page: Page) -> None:
    page.get_by_text("Theme: as the system").click()
    expect(page.get_by_text("Theme: dark")).to_be_visible()
    page.wait_for_function("document.cookie.includes('edgeml_theme=dark')")
    page.reload()
    expect(page.get_by_text("Theme: dark")).to_be_visible()
    assert page.evaluate("document.body.classList.contains('body--dark')")


def test_a_thousand_devices_are_cells_and_the_page_stays_quick(
    page: Page, console: Console
) -> None:
    console.show("many")
    expect(page.locator(".cell")).to_have_count(1000)
    began = time.monotonic()
    page.reload()
    expect(page.locator(".cell")).to_have_count(1000)
    assert time.monotonic() - began < 5
    expect(page.get_by_text("and 988 devices more")).to_be_visible()


def test_it_can_be_used_with_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").startswith("Theme")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    expect(page.locator("#rollout-digits-1\\.2\\.0-ab12cd")).not_to_have_attribute("open", "")
