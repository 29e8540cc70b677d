"""How models do over time, out of the roll-ups: latency, errors and rates, by what they differ.

A step is chosen so that a series has at most `MAX_POINTS` points, from the finest roll-ups that
reach back far enough; where the labels asked for are not those that roll-ups keep apart
(`rollups.LABELS`), or a device is, from the hours of each device.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from edgeml.errors import UserError
from fleet.db import tables
from fleet.rollouts.selector import EVERYTHING, Selector, parse_selector
from fleet.services.context import Services
from fleet.services.rollups import DAY, HOUR, LABELS, MINUTE, STEPS, sums_of
from fleet.services.selection import chosen
from fleet.sums import Sums

MAX_POINTS = 300
MAX_SERIES = 100
MAX_ROWS = 50_000
STAGES = ("wait", "pre", "inference", "post", "total")
_STEPS = (MINUTE, 300, 900, HOUR, 6 * HOUR, DAY, 7 * DAY)
_BY = ("model", "release", "hardware_class", *(f"label:{key}" for key in LABELS), "device")


class Measured(TypedDict):
    """A metric of the devices in one step: temperature, or what programs on them gave."""

    n: int
    mean: float
    min: float
    max: float


class MetricPoint(TypedDict):
    """What was summed up in the step that begins at `at`; latencies in ms of one stage.

    `error_rate` is of the frames that were accepted and not replaced; it and the percentiles are
    null where there was none. `per_s` is inferences a second of measured time;
    `energy_per_inference_j` is of the devices that measure it, null where none does.
    """

    at: int
    windows: int
    accepted: int
    replaced: int
    inferred: int
    empty: int
    errors: int
    confident: int
    rss_bytes: int
    per_s: float
    error_rate: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    energy_per_inference_j: float | None
    metrics: dict[str, Measured]


class MetricSeries(TypedDict):
    """A series of points, oldest first, and what it is of."""

    of: dict[str, str]
    total: MetricPoint
    points: list[MetricPoint]


class Metrics(TypedDict):
    """Series over one time range; `cut` says that there were more than are shown."""

    begin: int
    end: int
    step_s: int
    stage: str
    cut: bool
    series: list[MetricSeries]


@dataclass(frozen=True)
class Asked:
    """What is asked for; empty texts leave nothing out.

    `begin` and `end` are Unix seconds, `step_s` 0 chooses by itself. `by` names what series are
    kept apart by: `model`, `release`, `hardware_class`, `label:site`, `device`.
    """

    begin: float
    end: float
    model: str = ""
    release: str = ""
    hardware_class: str = ""
    device: str = ""
    selector: str = ""
    by: tuple[str, ...] = ()
    step_s: int = 0
    stage: str = "inference"


def series(services: Services, asked: Asked, scope: Selector = EVERYTHING) -> Metrics:
    """The series that are asked for, of the devices in a scope; those with most windows first.

    Raises:
        UserError: the question makes no sense; says what would.
    """
    selector = parse_selector(asked.selector)
    _check(asked)
    of_devices = bool(asked.device) or "device" in asked.by or not _is_kept(selector, scope)
    with services.database.read() as session:
        if of_devices:
            source: _Classes | _Devices = _Devices((selector, scope))
            step, stored = _step(asked, HOUR), HOUR
        else:
            source = _Classes((selector, scope))
            step = _step(asked, _reaching(session, asked))
            stored = max(one for one in STEPS if one <= step)
        begin, end = int(asked.begin // step) * step, int(asked.end)
        rows = list(session.scalars(source.query(asked, stored, begin).limit(MAX_ROWS + 1)))
    if len(rows) > MAX_ROWS:
        raise UserError(
            f"More than {MAX_ROWS} roll-ups would have to be put together.",
            fix="Ask for one model, for fewer devices, a shorter time or a longer step.",
        )
    found: dict[tuple[str, ...], dict[int, Sums]] = {}
    for row in rows:
        about = source.about(row)
        if about is not None:
            key = tuple(about[name] for name in asked.by)
            at = row.begins_at // step * step
            found.setdefault(key, {}).setdefault(at, Sums()).merge(sums_of(row))
    made = [
        _series(dict(zip(asked.by, key, strict=True)), sums, asked) for key, sums in found.items()
    ]
    made.sort(key=lambda one: (-one["total"]["windows"], sorted(one["of"].items())))
    return {
        "begin": begin,
        "end": end,
        "step_s": step,
        "stage": asked.stage,
        "cut": len(made) > MAX_SERIES,
        "series": made[:MAX_SERIES],
    }


@dataclass(frozen=True)
class _Classes:
    """Roll-ups over like devices: which rows are asked for, and what one is of."""

    both: tuple[Selector, Selector]

    def query(self, asked: Asked, stored: int, begin: int) -> Any:
        row = tables.RollUp
        query = select(row).where(row.step == stored, *_common(row, asked, begin))
        if asked.hardware_class:
            query = query.where(row.hardware_class == asked.hardware_class)
        return query

    def about(self, row: tables.RollUp) -> dict[str, str] | None:
        labels: dict[str, str] = msgspec.json.decode(row.labels)
        if not all(selector.matches(labels) for selector in self.both):
            return None
        kept = {f"label:{key}": labels.get(key, "") for key in LABELS}
        return {
            "model": row.model,
            "release": row.release,
            "hardware_class": row.hardware_class,
            **kept,
        }


@dataclass(frozen=True)
class _Devices:
    """Roll-ups of each device by the hour."""

    both: tuple[Selector, Selector]

    def query(self, asked: Asked, _stored: int, begin: int) -> Any:
        row, device = tables.DeviceRollUp, tables.Device
        query = select(row).where(*_common(row, asked, begin))
        query = query.where(*(chosen(selector, row.device) for selector in self.both))
        if asked.device:
            query = query.where(row.device == asked.device)
        if asked.hardware_class:
            of_class = select(device.id).where(device.hardware_class == asked.hardware_class)
            query = query.where(row.device.in_(of_class))
        return query

    def about(self, row: tables.DeviceRollUp) -> dict[str, str] | None:
        return {"model": row.model, "release": row.release, "device": row.device}


def _common(
    row: type[tables.RollUp | tables.DeviceRollUp], asked: Asked, begin: int
) -> list[ColumnElement[bool]]:
    wanted = [row.begins_at >= begin, row.begins_at < asked.end]
    wanted += [row.model == asked.model] if asked.model else []
    return wanted + ([row.release == asked.release] if asked.release else [])


def _check(asked: Asked) -> None:
    if not 0 <= asked.begin < asked.end:
        raise UserError("The time range is empty.", fix="Give a begin before the end, in seconds.")
    if asked.stage not in STAGES:
        raise UserError(
            f"There is no stage {asked.stage[:40]!r}.", fix=f"Name one of: {', '.join(STAGES)}."
        )
    known = set(_BY)
    if asked.device or "device" in asked.by:
        known = {"model", "release", "device"}
    if unknown := set(asked.by) - known:
        raise UserError(
            f"Series cannot be kept apart by {min(unknown)[:60]!r}.",
            fix=f"Name any of: {', '.join(name for name in _BY if name in known)}.",
        )


def _is_kept(*selectors: Selector) -> bool:
    """Whether roll-ups keep apart all the labels that selectors speak of."""
    named = {one.key for selector in selectors for one in selector.requirements}
    return named <= set(LABELS)


def _reaching(session: Session, asked: Asked) -> int:
    """The finest step whose roll-ups reach back to the beginning, as far as there are any."""
    row = tables.RollUp
    for finer, coarser in pairwise(STEPS):
        oldest = session.scalar(select(func.min(row.begins_at)).where(row.step == finer))
        end = asked.end if oldest is None else min(asked.end, oldest - coarser + 1)
        begin = int(asked.begin // coarser) * coarser
        before = select(row.step).where(
            row.step == coarser, row.begins_at >= begin, row.begins_at < end
        )
        if session.scalar(before.limit(1)) is None:
            return finer
    return STEPS[-1]


def _step(asked: Asked, least: int) -> int:
    """The step of a series: what was asked for, where there is such, or what fits."""
    span = asked.end - asked.begin
    fitting = [step for step in _STEPS if step >= least and span / step <= MAX_POINTS]
    if not fitting:
        whole = -(-span // (MAX_POINTS * DAY))
        fitting = [int(whole) * DAY]
    return max(fitting[0], min((s for s in _STEPS if s >= asked.step_s), default=_STEPS[-1]))


def _series(of: dict[str, str], sums: dict[int, Sums], asked: Asked) -> MetricSeries:
    total = Sums()
    for one in sums.values():
        total.merge(one)
    return {
        "of": of,
        "total": _point(asked.stage, int(asked.begin), total),
        "points": [_point(asked.stage, at, sums[at]) for at in sorted(sums)],
    }


def _point(stage: str, at: int, sums: Sums) -> MetricPoint:
    tried = sums.inferred + sums.empty + sums.errors
    return {
        "at": at,
        "windows": sums.windows,
        "accepted": sums.accepted,
        "replaced": sums.replaced,
        "inferred": sums.inferred,
        "empty": sums.empty,
        "errors": sums.errors,
        "confident": sums.confident,
        "rss_bytes": sums.rss_bytes,
        "per_s": sums.inferred / sums.seconds if sums.seconds else 0.0,
        "error_rate": sums.errors / tried if tried else None,
        "p50_ms": sums.percentile(stage, 50),
        "p95_ms": sums.percentile(stage, 95),
        "p99_ms": sums.percentile(stage, 99),
        "energy_per_inference_j": sums.energy_per_inference_j,
        "metrics": {
            name: {"n": one.n, "mean": one.sum / one.n, "min": one.min, "max": one.max}
            for name, one in sorted(sums.metrics.items())
        },
    }
