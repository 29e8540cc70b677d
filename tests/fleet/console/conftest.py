"""The console in a real browser: a served fleet, pages that note their faults, axe-core, pictures.

def test_it(console: Console, page: Page) -> None:     # an admin's page, which goes nowhere yet
    console.seed("story")
    console.open(page, "/devices")
    expect(page.get_by_text("cam-1")).to_be_visible()
    console.assert_clean()
    assert_accessible(page)
    photograph(page, "devices")
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import axe_playwright_python  # type: ignore[import-untyped]
import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from tests import needs

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
WIDE = {"width": 1400, "height": 900}
NARROW = {"width": 375, "height": 800}
PATIENCE_MS = 60_000
# Chromium gives up what it loads when any interface comes or goes.
DISTURBED = "net::ERR_NETWORK_CHANGED"
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Console:
    """A served console, and what pages on it did that a clean page does not."""

    url: str
    process: subprocess.Popen[str]
    faults: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    disturbed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, line: str) -> str:
        """Tell the fleet something; see `tests.fleet.console.serve`."""
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
            return said(self.process)

    def seed(self, name: str, *arguments: str) -> None:
        """Fill the database under the open pages, by a function of `seeds`."""
        assert self.ask(" ".join(("seed", name, *arguments))) == "done"

    def link(self, role: str = "", scope: str = "") -> str:
        """A link that logs in once, as the machine's owner or somebody with a role and scope."""
        return self.ask(f"link {role} {scope}".strip())

    def link_of(self, name: str, role: str, scope: str = "") -> str:
        """A link that logs a user in, who is made."""
        self.ask(f"user {name} {role} {scope}".strip())
        return self.ask(f"link-of {name}")

    def open(self, page: Page, path: str) -> None:
        """Go to a page of the console and wait until it is live."""
        for _ in range(5):
            before = self.disturbed
            try:
                page.goto(f"{self.url}/console{path}")
            except Error as error:
                self._fault(str(error))
            if self.disturbed == before:
                break
        live(page)

    @contextmanager
    def visit(
        self, browser: Browser, role: str = "", scope: str = "", *, dark: bool = False,
        narrow: bool = False, link: str = "",
    ) -> Iterator[Page]:  # fmt: skip
        """Another browser with somebody logged in, or by a link of theirs; it goes nowhere yet."""
        context = browser.new_context(
            viewport=NARROW if narrow else WIDE,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        self.watch(page)
        context.request.get(link or self.link(role, scope), max_redirects=0)
        yield page
        context.close()

    def watch(self, page: Page) -> None:
        """Note errors of a page, and whom it asks."""
        page.on("console", lambda m: self._fault(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self._note(request.url))
        page.on("websocket", lambda socket: self._note(socket.url))

    def assert_clean(self) -> None:
        """No error in a browser's console, and no request to another host."""
        assert self.faults == []
        assert self.hosts <= {self.url.split("//")[1]}

    def _fault(self, text: str) -> None:
        """Note an error; not that another test gave the machine a network interface."""
        if DISTURBED in text:
            self.disturbed += 1
        else:
            self.faults.append(text)

    def _note(self, url: str) -> None:
        if not url.startswith(("data:", "blob:")):
            self.hosts.add(url.split("/")[2])


def said(process: subprocess.Popen[str]) -> str:
    """The next answer of a fleet, which failed where it says so."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the fleet has ended: {process.wait(60)}"
    answer: dict[str, str] = json.loads(line)
    assert "said" in answer, answer["failed"]
    return answer["said"]


def live(page: Page) -> None:
    """Wait until a page has its socket."""
    page.wait_for_function("window.did_handshake === true", timeout=PATIENCE_MS)


def asked_of_api(page: Page, path: str) -> Any:
    """What the REST API answers to whoever has a page open."""
    return page.evaluate("(path) => fetch(path).then((answer) => answer.json())", path)


def assert_accessible(page: Page, only: str = "") -> None:
    """No finding of axe-core that is serious or critical; by one of its rules, or by all."""
    page.evaluate(AXE.read_text())
    options = {"resultTypes": ["violations"], **({"runOnly": [only]} if only else {})}
    found = page.evaluate("(options) => axe.run(document, options)", options)
    serious = [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]
    assert serious == []


def themed_as(page: Page, scheme: str) -> None:
    """Have the browser prefer a theme."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")


def themed(page: Page, scheme: str) -> None:
    """Have the browser prefer a theme, and wait until the page has it."""
    themed_as(page, scheme)
    page.wait_for_function(
        f"document.body.classList.contains('body--dark') === {str(scheme == 'dark').lower()}"
    )


def photograph(page: Page, name: str) -> None:
    """Keep pictures of a page in the folder EDGEML_SCREENSHOTS: both themes, wide and narrow."""
    folder = os.environ.get("EDGEML_SCREENSHOTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    before = page.viewport_size
    for scheme, size in (("dark", WIDE), ("dark", NARROW), ("light", NARROW), ("light", WIDE)):
        themed(page, scheme)
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.wait_for_timeout(400)  # what is drawn in the end is all that matters here
        file = Path(folder) / f"{name}-{scheme}-{size['width']}.png"
        page.screenshot(path=file, full_page=True)
    if before is not None:
        page.set_viewport_size(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = needs.program("chromium", "chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield launched
        launched.close()


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[Console]:
    """A console of a fleet in a folder, in which a seeded history stays as it is."""
    command = [sys.executable, "-m", "tests.fleet.console.serve", str(folder), "--history"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Console(said(process), process)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with serving(tmp_path_factory.mktemp("console")) as console:
        yield console


@pytest.fixture
def console(served: Console) -> Console:
    served.faults.clear()
    served.hosts.clear()
    return served


@pytest.fixture(scope="module")
def desk(served: Console, browser: Browser) -> Iterator[Page]:
    """An admin's page that keeps its process: what a new one has to load again costs seconds."""
    with served.visit(browser) as opened:
        yield opened


@pytest.fixture
def page(console: Console, desk: Page) -> Iterator[Page]:
    desk.set_viewport_size(WIDE)  # type: ignore[arg-type]
    themed_as(desk, "light")
    yield desk
    desk.goto("about:blank")
