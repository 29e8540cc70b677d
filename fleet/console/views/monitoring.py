"""What the monitoring page asks for and shows, as values. Pure."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from fleet.console.views.charts import Line
from fleet.console.views.overview import over_time
from fleet.console.views.tables import Cell, Row
from fleet.console.views.wording import number
from fleet.services.metrics import Asked, MetricPoint, Metrics, MetricSeries

RANGES = {
    "15m": ("15 min", 900.0),
    "1h": ("1 h", 3600.0),
    "6h": ("6 h", 6 * 3600.0),
    "24h": ("24 h", 86400.0),
    "7d": ("7 d", 7 * 86400.0),
    "30d": ("30 d", 30 * 86400.0),
}
BY = {
    "all": "all together",
    "model": "model",
    "release": "release",
    "hardware_class": "hardware class",
    "label:site": "site",
}
MAX_LINES = 12
SHORTEST_S = 300.0
LONGEST_S = 366 * 86400.0
_DEFAULT = "1h"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to see; all of it is in the page's address.

    `begin` and `end` are Unix seconds of a range that stands still, 0 where `quick` moves with
    the time. `release` is `model:version`.
    """

    quick: str = _DEFAULT
    begin: float = 0.0
    end: float = 0.0
    model: str = ""
    release: str = ""
    hardware_class: str = ""
    selector: str = ""
    by: str = "release"
    stage: str = "inference"

    @property
    def is_live(self) -> bool:
        """Whether the range moves with the time."""
        return not self.end

    def range(self, now: float) -> tuple[float, float]:
        """From when to when."""
        return (self.begin, self.end) if self.end else (now - RANGES[self.quick][1], now)

    def query(self) -> dict[str, str]:
        """What stands in the address: what differs from what is shown by itself."""
        plain = Wanted()
        found = {
            name: str(value)
            for name, value in msgspec.structs.asdict(self).items()
            if value != getattr(plain, name) and name not in {"begin", "end"}
        }
        if self.end:
            found |= {"from": f"{self.begin:.0f}", "to": f"{self.end:.0f}"}
            found.pop("quick", None)
        return {**dict.fromkeys((*msgspec.structs.asdict(plain), "from", "to"), ""), **found}


def wanted(query: Mapping[str, str]) -> Wanted:
    """What an address asks for; what cannot be read is as if it were not there."""
    begin, end = _moment(query.get("from", "")), _moment(query.get("to", ""))
    by, stage = query.get("by", "release"), query.get("stage", "inference")
    is_range = 0 < begin < end
    return Wanted(
        quick=query["quick"] if query.get("quick") in RANGES else _DEFAULT,
        begin=begin if is_range else 0.0,
        end=end if is_range else 0.0,
        model=query.get("model", ""),
        release=query.get("release", ""),
        hardware_class=query.get("hardware_class", ""),
        selector=query.get("selector", ""),
        by=by if by in BY else "release",
        stage=stage,
    )


def asked(shown: Wanted, digests: Mapping[str, str], now: float) -> Asked:
    """The same for the service; `digests` are those of releases by `model:version`."""
    begin, end = shown.range(now)
    return Asked(
        begin=begin,
        end=end,
        model=shown.model,
        release=digests.get(shown.release, shown.release),
        hardware_class=shown.hardware_class,
        selector=shown.selector,
        by=() if shown.by == "all" else (shown.by,),
        stage=shown.stage,
    )


def address(one: Asked) -> str:
    """The REST call that gives the same numbers."""
    query: list[tuple[str, str]] = [
        ("begin", f"{one.begin:.0f}"),
        ("end", f"{one.end:.0f}"),
        *(
            (name, value)
            for name in ("model", "release", "hardware_class", "selector", "stage")
            if (value := getattr(one, name))
        ),
        *(("by", name) for name in one.by),
    ]
    return f"/api/v1/metrics?{urlencode(query)}"


def moved(shown: Wanted, now: float, shift: float = 0.0, scale: float = 1.0) -> Wanted:
    """Another range: `shift` lengths later, `scale` times as long, about its middle."""
    begin, end = shown.range(now)
    length = end - begin
    middle = (begin + end) / 2 + shift * length
    half = min(max(length * scale, SHORTEST_S), LONGEST_S) / 2
    last = min(middle + half, now)
    return between(shown, last - 2 * half, last)


def between(shown: Wanted, begin: float, end: float) -> Wanted:
    """A range that stands still, and is not too short to hold a point."""
    missing = max(SHORTEST_S - (end - begin), 0.0) / 2
    return msgspec.structs.replace(
        shown, begin=max(begin - missing, 1.0), end=max(end + missing, 2.0)
    )


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart of the page."""

    title: str
    unit: str
    percent: bool
    of: Callable[[MetricPoint, int], float | None]


def _share(part: str, whole: str) -> Callable[[MetricPoint, int], float | None]:
    def share(point: MetricPoint, _step: int) -> float | None:
        found: Mapping[str, Any] = point
        return found[part] / found[whole] if found[whole] else None

    return share


CHARTS = {
    "p95": Chart(title="Latency p95", unit="ms", percent=False, of=lambda p, _: p["p95_ms"]),
    "p50": Chart(title="Latency p50", unit="ms", percent=False, of=lambda p, _: p["p50_ms"]),
    "rate": Chart(
        title="Inferences a second", unit="", percent=False, of=lambda p, s: p["inferred"] / s
    ),
    "errors": Chart(title="Error rate", unit="", percent=True, of=lambda p, _: p["error_rate"]),
    "confident": Chart(
        title="Confident share", unit="", percent=True, of=_share("confident", "inferred")
    ),
    "replaced": Chart(
        title="Frames left out", unit="", percent=True, of=_share("replaced", "accepted")
    ),
}


def lines(chart: Chart, metrics: Metrics, names: Mapping[str, str]) -> tuple[Line, ...]:
    """The lines of a chart; `names` are those of releases by digest."""
    step = metrics["step_s"]
    return tuple(
        Line(
            name=name_of(one, names),
            points=tuple(
                (at, chart.of(point, step) if point else None)
                for at, point in over_time(one, metrics)
            ),
        )
        for one in metrics["series"][:MAX_LINES]
    )


def measured(metrics: Metrics) -> tuple[str, ...]:
    """What devices measured besides: temperature and the like, by name."""
    return tuple(sorted({name for one in metrics["series"] for name in one["total"]["metrics"]}))


def measured_lines(name: str, metrics: Metrics, names: Mapping[str, str]) -> tuple[Line, ...]:
    """The mean of such a figure over time."""
    return tuple(
        Line(
            name=name_of(one, names),
            points=tuple(
                (float(point["at"]), point["metrics"][name]["mean"])
                for point in one["points"]
                if name in point["metrics"]
            ),
        )
        for one in metrics["series"][:MAX_LINES]
    )


def rows(metrics: Metrics, names: Mapping[str, str]) -> dict[str, Row]:
    """The totals over the whole range, a row for each series."""
    return {str(number): _row(one, names) for number, one in enumerate(metrics["series"])}


def sentence(metrics: Metrics) -> str:
    """What is seen: how many series, of which step."""
    count = len(metrics["series"])
    if not count:
        return "No telemetry in this range."
    most = f", the {MAX_LINES} largest drawn" if count > MAX_LINES else ""
    cut = "; there are more" if metrics["cut"] else ""
    return f"{count:,} series{most}, a point for each {_length(metrics['step_s'])}{cut}. UTC."


def name_of(series: MetricSeries, names: Mapping[str, str]) -> str:
    """What a series is of, with releases by their names."""
    return ", ".join(names.get(text, text) or "none" for text in series["of"].values()) or "all"


def _row(one: MetricSeries, names: Mapping[str, str]) -> Row:
    total = one["total"]
    confident = total["confident"] / total["inferred"] if total["inferred"] else None
    figures = (
        f"{total['inferred']:,}",
        _ms(total["p50_ms"]),
        _ms(total["p95_ms"]),
        _ms(total["p99_ms"]),
        _percent(total["error_rate"]),
        _percent(confident),
        f"{total['rss_bytes'] / 1e6:,.0f} MB" if total["rss_bytes"] else "-",
    )
    return (name_of(one, names), *(Cell(figure, number=True) for figure in figures))


def _ms(value: float | None) -> str:
    return "-" if value is None else number(value, "ms")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.3g} %"


def _moment(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if 0 < found < 2**40 else 0.0


def _length(seconds: int) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds} s"
