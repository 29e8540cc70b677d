"""Whether the figures that a page shows are those of the REST API, however a page words them.

A page rounds, scales, counts and adds up; it computes little else. So a figure is known where a
number of the answers rounds to it in its unit, where so many things of one kind are listed or it is
their sum, where it is the time or the age of a moment, or where it stands in a text of theirs; a
rate or a share, where the inferences that were counted give it.

>>> known = Known([{"p95_ms": 11.84, "release": "digits:1.2.0", "devices": [{"on": 1}, {"on": 1}]}])
>>> known.missing(["11.8 ms", "digits:1.2.0", "2 devices", "12.1 ms"], now=0.0)
['12.1 ms']
"""

import datetime as dt
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page

from tests.fleet.console.conftest import PATIENCE_MS, asked_of_api

_FIGURE = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_SCALES = {"%": 100.0, "points": 100.0, "kB": 1e-3, "MB": 1e-6, "GB": 1e-9}
_AGES = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_MOMENTS = (
    "%d %b %H:%M:%S UTC",
    "%d %b %H:%M UTC",
    "%d %b %Y",
    "%H:%M:%S UTC",
    "%d %b %H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d [\d:]{8}|\d\d [A-Z][a-z]{2} [\d:]+(?: UTC)?|[\d:]{8} UTC")
_IS_MOMENT = 1e9  # Unix seconds: 2001

DOCS = (Path(__file__).parents[3] / "docs/console.md").read_text().partition("## The numbers")[2]
ROWS = {
    "overview": "Overview", "devices": "Devices", "models": "Models", "model": "Models",
    "release": "A release, two of them", "compare": "A release, two of them",
    "rollouts": "Rollouts", "rollout": "A rollout", "new-rollout": "New rollout",
    "monitoring": "Monitoring", "audit": "Audit", "users": "Users and tokens",
    "settings": "Settings",
}  # fmt: skip
MORE = {
    "/devices": "limit=1000", "/evidence": "limit=1000", "/audit": "limit=1000",
    "/telemetry": "device=press-1&limit=1000",
}  # fmt: skip
# What a page shows for people to read: not its controls, commands, headings and explanations.
SHOWN = """() => {
  const quiet = "button, select, label, code, pre, nav, thead, iframe, textarea, h2, h4, summary," +
    " .hidden, .legend, .empty, details p";
  const found = [];
  for (const one of document.querySelectorAll("#main *")) {
    if (one.closest(quiet) || !one.getClientRects().length) continue;
    const own = [...one.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    const text = own.map((node) => node.textContent).join(" ").trim();
    if (/\\d/.test(text)) found.push(text);
  }
  return found;
}"""


def unknown(page: Page, name: str) -> list[str]:
    """The figures of an open page that its routes do not have; asked again, as both are live."""
    end = time.monotonic() + PATIENCE_MS / 1000
    missing = [""]
    while missing and time.monotonic() < end:
        shown = page.evaluate(SHOWN)
        missing = Known(answers(page, name)).missing(shown, time.time())
    return missing


def answers(page: Page, name: str) -> list[Any]:
    """What the routes of a page answer to whoever has it open."""
    row = re.escape(ROWS.get(name, "A device"))
    routes = re.search(rf"^\| {row} \|(.*)\|$", DOCS, re.MULTILINE)
    assert routes is not None
    paths = re.findall(r"`GET (/[^`]*)`", routes[1])
    return [
        asked_of_api(page, f"/api/v1{path}")
        for one in paths
        if not one.endswith("/report")  # a page, in a frame of its own
        for path in filled(page, one)
    ]


def filled(page: Page, route: str) -> list[str]:
    """A route with what the page's address names; of a comparison there are two releases."""
    at = urlsplit(page.url)
    names = [":".join(at.path.split("/")[3:5])]
    if at.path.endswith("/compare"):
        names = [one for values in parse_qs(at.query).values() for one in values]
    if route == "/metrics":
        return [metrics_of(page)]
    more = f"?{MORE[route]}" if route in MORE else ""
    return [
        route.format(
            device="press-1", rollout="digits-1.1.0-ab12cd", model=name.partition(":")[0],
            version=name.partition(":")[2],
        )
        + more
        for name in (names if "{model}" in route else names[:1])
    ]  # fmt: skip


def metrics_of(page: Page) -> str:
    """The question that Monitoring itself names; elsewhere the last hour by model."""
    named = page.locator("code").filter(has_text="/api/v1/metrics")
    if named.count():
        return (named.text_content() or "").partition("/api/v1")[2].rstrip("'")
    return f"/metrics?by=model&begin={time.time() - 3600:.0f}"


class Known:
    """The numbers and texts of some answers."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self._numbers: set[float] = set()
        self._rates: set[float] = set()
        texts: set[str] = set()
        for one in _walk(list(answers)):
            if isinstance(one, str):
                texts.add(one)
            elif isinstance(one, bool) or one is None:
                continue
            elif isinstance(one, int | float):
                self._numbers.add(float(one))
            elif isinstance(one, list):
                self._numbers.update(map(float, _counts(one)))
            else:
                self._numbers.add(float(len(one)))
                self._rates.update(_rates(one))
                if one.get("inferred") and "confident" in one:
                    self._numbers.add(one["confident"] / one["inferred"])
                texts.update(one)
        moments = [n for n in self._numbers if _IS_MOMENT < n < 1e11]
        for moment in moments:
            at = dt.datetime.fromtimestamp(moment, dt.UTC)
            texts.update(at.strftime(form) for form in _MOMENTS)
        self._texts = "\n".join(texts)

    def missing(self, shown: Sequence[str], now: float) -> list[str]:
        """Those of the texts of a page that have a figure which the answers do not have."""
        return [text for text in shown if not self._has_all(text, now)]

    def _has_all(self, text: str, now: float) -> bool:
        if any(moment not in self._texts for moment in _MOMENT.findall(text)):
            return False
        text = _MOMENT.sub("", text)
        words = text.split()
        # `94.3 % (95 % interval 93.4 to 95.2, n = 1,797)`: what has no unit may be per cent, too.
        units = ("", "%") if "%" in words else ("",)
        return all(
            any(
                self._has(word, words[place + 1] if place + 1 < len(words) else unit, now)
                or self._has(word, unit, now)
                for unit in units
            )
            for place, word in enumerate(words)
            if any(c.isdigit() for c in word)
        )

    def _has(self, word: str, unit: str, now: float) -> bool:
        bare = word.strip("(),;:.…")
        if not bare or bare in self._texts:
            return not bare or not _FIGURE.fullmatch(bare) or self._has_figure(bare, unit, now)
        pieces = re.split("[:=/]", bare)
        if len(pieces) > 1:  # `model:version`, `label=value`
            return all(self._has(piece, "", now) for piece in pieces)
        found = _FIGURE.fullmatch(bare.removesuffix("%"))
        return found is not None and self._has_figure(
            bare.removesuffix("%"), "%" if bare.endswith("%") else unit, now
        )

    def _has_figure(self, figure: str, unit: str, now: float) -> bool:
        value = float(figure.replace(",", ""))
        unit = unit.strip("(),;:.")
        decimals = len(figure.partition(".")[2])
        if any(_is_about(value, n * _SCALES.get(unit, 1.0), decimals) for n in self._numbers):
            return True
        if unit == "/s":
            return any(_is_about(value, rate, decimals) for rate in self._rates)
        if unit == "points":
            shares = [n for n in self._numbers if 0 < n < 1]
            return any(
                _is_about(value, 100 * (one - other), decimals)
                for one in shares
                for other in shares
            )
        if unit in _AGES:
            ages = (abs(now - n) if n > _IS_MOMENT else n for n in self._numbers)
            return any(abs(age / _AGES[unit] - value) < 1.0 for age in ages)
        return bool(re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", self._texts))


def _is_about(shown: float, known: float, decimals: int) -> bool:
    """Whether a number is shown so: rounded to its decimals, or to three digits."""
    return abs(known - shown) <= max(0.5 * 10.0**-decimals, 0.0) + 1e-9 * abs(known)


def _counts(items: list[Any]) -> Iterator[float]:
    """How many there are, how many of them share a value under a name, and what they sum up to."""
    yield len(items)
    shared = Counter(
        (name, value)
        for item in items
        if isinstance(item, dict)
        for name, value in _flat(item)
        if isinstance(value, str | int | bool | None)
    )
    yield from set(shared.values())
    sums: dict[str, float] = defaultdict(float)
    for item in items:
        for name, value in _flat(item) if isinstance(item, dict) else ():
            if isinstance(value, int | float) and not isinstance(value, bool):
                sums[name] += value
    yield from sums.values()


def _rates(answer: dict[str, Any]) -> Iterator[float]:
    """Inferences a second at each point of an answer of `GET /metrics`, of all series together."""
    counted: Counter[float] = Counter()
    for series in answer.get("series") or ():
        for point in series["points"]:
            counted[point["at"]] += point["inferred"]
    yield from (count / answer["step_s"] for count in counted.values())


def _flat(item: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in item.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", found) for inner, found in _flat(value))
        else:
            yield name, value


def _walk(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        for inner in value.values():
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)
