"""The console in Chromium, over a fleet of 10,000 devices: how soon, how smooth, how heavy.

Wall time in a real browser, from the address or the key to what is seen. The devices are rows of
the database; while frames are counted, 1,000 of them report every second.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.measure import Row, main, quartiles, versions

DEVICES = 10_000
REPORTS_A_S = 1000
VIEW_S, FILTER_S, FRAMES, PAGE_MB = 1.5, 1.0, 30.0, 5.0
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
_ROOT = Path(__file__).parents[1]
_FRAMES = """(seconds) => new Promise((done) => {
  let frames = 0;
  const begin = performance.now();
  const count = (now) => {
    frames += 1;
    if (now - begin < seconds * 1000) requestAnimationFrame(count);
    else done(frames / ((now - begin) / 1000));
  };
  requestAnimationFrame(count);
})"""

_UPDATES = 10
_COUNT_UPDATES = """() => {
  window.updates = 0;
  new MutationObserver(() => { window.updates += 1; }).observe(
    document.getElementById("main"), {subtree: true, childList: true, characterData: true});
}"""
_PATIENCE_MS = 120_000


class Served:
    """A console of very many devices, in a process of its own."""

    def __init__(self, folder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.console.serve", folder, "--history"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self.url = self._line()

    def ask(self, line: str) -> str:
        """Tell it something, and wait until it is done."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            return self._line()

    def memory_mb(self) -> float:
        """What the process holds."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
        return float(line.split()[1]) / 1e3

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _line(self) -> str:
        assert self._process.stdout is not None
        answer: dict[str, str] = json.loads(self._process.stdout.readline())
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer["said"]

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Have devices report, a thousand a second."""
        ended = threading.Event()

        def report() -> None:
            due = time.monotonic()
            while not ended.wait(max(0.0, due - time.monotonic())):
                self.ask(f"seed report {REPORTS_A_S}")
                due += 1.0

        thread = threading.Thread(target=report)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def run(quick: bool) -> Iterator[Row]:
    """Measure all of it."""
    rounds = 5 if quick else 11
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Served(folder)) as served:
        served.ask(f"seed many {DEVICES}")
        with sync_playwright() as playwright, _browser(playwright) as browser:
            _view(browser, served)
            cold = [_view(browser, served) for _ in range(rounds)]
            yield _row("first_view_s", cold, "s", VIEW_S, f"< {VIEW_S} s, nothing in the cache")
            page = _logged_in(browser, served)
            filters = [_filter(page, served, number) for number in range(rounds)]
            yield _row("filter_s", filters, "s", FILTER_S, f"< {FILTER_S} s")
            page.goto(f"{served.url}/console/")
            _wait_for_tile(page)
            with served.reporting():
                frames = [page.evaluate(_FRAMES, 2.0) for _ in range(rounds)]
            yield _row("frames_per_s_under_updates", frames, "/s", -FRAMES, f">= {FRAMES:g}")
            yield _memory(browser, served, 8 if quick else 20)


@contextlib.contextmanager
def _browser(playwright: object) -> Iterator[Browser]:
    launched = playwright.chromium.launch(  # type: ignore[attr-defined]
        executable_path="/usr/bin/chromium", args=list(_FLAGS)
    )
    yield launched
    launched.close()


def _logged_in(browser: Browser, served: Served) -> Page:
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.goto(served.ask("link"))
    return page


def _wait_for_tile(page: Page) -> None:
    page.locator(".tile").filter(has_text=f"of {DEVICES:,}").wait_for()


def _view(browser: Browser, served: Served) -> float:
    """From the address to the figures, with nothing in the browser's cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    context.request.get(served.ask("link"), max_redirects=0)
    began = time.perf_counter()
    page.goto(f"{served.url}/console/", wait_until="commit")
    _wait_for_tile(page)
    took = time.perf_counter() - began
    context.close()
    return took


def _filter(page: Page, served: Served, number: int) -> float:
    """From Enter to the devices that a label selector chooses."""
    page.goto(f"{served.url}/console/devices")
    count = page.locator("main [role=status]")
    page.wait_for_function("window.did_handshake === true")
    count.filter(has_text=f"{DEVICES:,}").first.wait_for()
    before = count.first.text_content()
    field = page.locator("input[data-filter], [data-filter] input").first
    field.fill(f"site=north,line=line-{number}")
    began = time.perf_counter()
    field.press("Enter")
    page.wait_for_function(
        "(before) => document.querySelector('main [role=status]').textContent !== before",
        arg=before,
    )
    return time.perf_counter() - began


def _memory(browser: Browser, served: Served, pages: int) -> Row:
    """What an open page costs the server, when each has shown many updates."""
    before = served.memory_mb()
    opened = []
    for _ in range(pages):
        page = _logged_in(browser, served)
        _wait_for_tile(page)
        page.evaluate(_COUNT_UPDATES)
        opened.append(page)
    with served.reporting():
        for page in opened:
            page.wait_for_function(f"window.updates >= {_UPDATES}", timeout=_PATIENCE_MS)
    each = (served.memory_mb() - before) / pages
    for page in opened:
        page.context.close()
    return Row(
        "server_mb_per_open_page", each, "MB", n=pages, goal=f"< {PAGE_MB:g}", holds=each < PAGE_MB
    )


def _row(metric: str, values: list[float], unit: str, bound: float, goal: str) -> Row:
    """The median; a negative bound is the least that it may be."""
    middle = statistics.median(values)
    holds = middle < bound if bound > 0 else middle >= -bound
    return Row(
        metric, middle, unit, spread=quartiles(values), n=len(values), goal=goal, holds=holds
    )


if __name__ == "__main__":
    main(
        "console",
        run,
        description="The console in Chromium, over 10,000 devices.",
        conditions=versions("nicegui", "playwright"),
    )
