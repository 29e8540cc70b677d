"""What the overview shows, as values. Pure."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence

import msgspec

from cloud_sync.messages import SecurityKind
from fleet.alerts.resources import AlertInfo
from fleet.console import paths
from fleet.console.views.audit import address_of, words
from fleet.console.views.charts import Line
from fleet.console.views.rollout import Step, steps_of
from fleet.console.views.rollout_list import RolloutLine, rollout_line, timeline
from fleet.console.views.wording import ago, number, plural
from fleet.resources import AuditInfo, Health, RolloutInfo
from fleet.services.census import Census
from fleet.services.metrics import MetricPoint, Metrics, MetricSeries

MAX_ALERTS = 6
MAX_BARS = 8
MAX_ENDED = 3
_LATELY_S = 3600.0
IN_MOTION = ("running", "paused", "draft")
_ALERT_TONES = {"critical": "bad", "warning": "warn"}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something about the fleet itself that an operator has to know."""

    tone: str
    text: str


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with what it is, and where more of it is."""

    name: str
    figure: str
    about: str
    tone: str
    address: str


class Motion(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout, with where it stands among its waves."""

    line: RolloutLine
    steps: tuple[Step, ...]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that fires."""

    id: int
    tone: str
    severity: str
    text: str
    since: str
    care: str
    address: str


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A number among others: `part` of it (0 to 1 of the largest) in each tone."""

    label: str
    number: str
    parts: tuple[tuple[str, float], ...]
    address: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, and where its subject is."""

    time: str
    who: str
    what: str
    subject: str
    address: str
    why: str
    tone: str


def notices(health: Health) -> tuple[Notice, ...]:
    """What is wrong with the fleet itself."""
    found = []
    if health["frozen"]:
        text = f"Rollouts are frozen: {health['frozen'].rstrip('.')}."
        found.append(Notice(tone="bad", text=text))
    if not health["broker_connected"]:
        text = "The MQTT broker does not answer; devices are reached over HTTPS only, and slower."
        found.append(Notice(tone="warn", text=text))
    untrusted = health["counters"].get(f"security.{SecurityKind.UNTRUSTED_RELEASE}", 0)
    if untrusted:
        text = f"Devices refused to trust a release, {plural(untrusted, 'time')}. See it:"
        found.append(Notice(tone="bad", text=f"{text} edgeml fleet security"))
    return tuple(found)


def tiles(
    health: Health,
    rollouts: Sequence[RolloutInfo],
    alerts: Sequence[AlertInfo],
    metrics: Metrics,
) -> tuple[Tile, ...]:
    """The fleet's health in one glance."""
    total, online = health["devices"], health["online"]
    states = Counter(one["status"] for one in rollouts)
    critical = sum(one["severity"] == "critical" for one in alerts)
    rates, latency = rate(metrics), latest_p95(metrics)
    offline = total - online
    return (
        Tile(
            name="Devices online",
            figure=f"{online:,} of {total:,}" if total else "none yet",
            about=f"{offline:,} away"
            if offline
            else "all are here"
            if total
            else "enrol the first",
            tone="idle" if not total else "good" if not offline else "warn",
            address=paths.to("/devices"),
        ),
        Tile(
            name="Rollouts in motion",
            figure=f"{states['running']:,}",
            about=", ".join(f"{states[one]:,} {one}" for one in ("paused", "draft") if states[one])
            or "none waits",
            tone="busy" if states["running"] else "idle",
            address=paths.to("/rollouts"),
        ),
        Tile(
            name="Alerts",
            figure=f"{len(alerts):,}",
            about=f"{critical:,} critical" if critical else "none critical",
            tone="bad" if critical else "warn" if alerts else "good",
            address=paths.to("/") + "#alerts",
        ),
        Tile(
            name="Inferences",
            figure=f"{number(rates)} /s" if rates is not None else "none",
            about="in the last minutes" if rates is not None else "no telemetry yet",
            tone="idle",
            address=paths.to("/monitoring"),
        ),
        Tile(
            name="Latency p95",
            figure=number(latency, "ms") if latency is not None else "none",
            about="of inference, all devices" if latency is not None else "no telemetry yet",
            tone="idle",
            address=paths.to("/monitoring"),
        ),
    )


def motions(rollouts: Sequence[RolloutInfo]) -> tuple[Motion, ...]:
    """The rollouts in motion, then the last that ended."""
    moving = [one for one in rollouts if one["status"] in IN_MOTION]
    ended = [one for one in rollouts if one["status"] not in IN_MOTION]
    shown = (*moving, *ended[:MAX_ENDED])
    return tuple(Motion(line=rollout_line(one), steps=steps_of(one)) for one in shown)


def alarms(alerts: Sequence[AlertInfo], now: float) -> tuple[Alarm, ...]:
    """The alerts that fire, critical ones first."""
    by_weight = sorted(alerts, key=lambda one: (one["severity"] != "critical", -one["began_at"]))
    return tuple(
        Alarm(
            id=one["id"],
            tone=_ALERT_TONES.get(one["severity"], "idle"),
            severity=one["severity"],
            text=one["summary"],
            since=f"{ago(now - one['began_at'])} ago",
            care=f"{one['acknowledged_by']} looks after it" if one["acknowledged_at"] else "",
            address=_subject(one),
        )
        for one in by_weight[:MAX_ALERTS]
    )


def over(alerts: Sequence[AlertInfo], now: float) -> tuple[Alarm, ...]:
    """The alerts that are over, but not for long."""
    return tuple(
        Alarm(
            id=one["id"],
            tone="idle",
            severity="over",
            text=one["summary"],
            since=f"ended {ago(now - one['resolved_at'])} ago",
            care="",
            address=_subject(one),
        )
        for one in alerts
        if one["resolved_at"] is not None and now - one["resolved_at"] < _LATELY_S
    )


def class_bars(census: Census) -> tuple[Bar, ...]:
    """The devices by hardware class: how many of each are online."""
    shown = census["classes"][:MAX_BARS]
    most = max((one["devices"] for one in shown), default=1)
    return tuple(
        Bar(
            label=one["hardware_class"] or "unknown hardware",
            number=f"{one['online']:,} of {one['devices']:,} online",
            parts=(
                ("good", one["online"] / most),
                ("warn", (one["devices"] - one["online"]) / most),
            ),
        )
        for one in shown
    )


def release_bars(census: Census) -> tuple[Bar, ...]:
    """The devices by release, of all hardware classes."""
    count: Counter[tuple[str, str]] = Counter()
    updating: Counter[tuple[str, str]] = Counter()
    for one in census["running"]:
        key = (one["model"], one["version"])
        count[key] += one["devices"]
        updating[key] += one["updating"]
    most = max(count.values(), default=1)
    return tuple(
        Bar(
            label=f"{model}:{version}",
            number=plural(devices, "device")
            + (f", {updating[model, version]:,} updating" if updating[model, version] else ""),
            parts=(("", devices / most),),
            address=paths.release(model, version),
        )
        for (model, version), devices in count.most_common(MAX_BARS)
    )


def rate_lines(metrics: Metrics) -> tuple[Line, ...]:
    """Inferences a second of the whole fleet over time, by model."""
    return tuple(
        Line(
            name=name_of(one),
            points=tuple(
                (at, point["inferred"] / metrics["step_s"] if point else 0.0)
                for at, point in over_time(one, metrics)
            ),
        )
        for one in metrics["series"]
    )


def latency_lines(metrics: Metrics) -> tuple[Line, ...]:
    """The 95th percentile of the latency over time, by model."""
    return tuple(
        Line(
            name=name_of(one),
            points=tuple(
                (at, point["p95_ms"] if point else None) for at, point in over_time(one, metrics)
            ),
        )
        for one in metrics["series"]
    )


def events(entries: Sequence[AuditInfo], now: float) -> tuple[Event, ...]:
    """What happened, newest first."""
    return tuple(_event(one, now) for one in entries)


def name_of(series: MetricSeries) -> str:
    """What a series is of."""
    return ", ".join(value or "none" for value in series["of"].values()) or "all"


def over_time(series: MetricSeries, metrics: Metrics) -> list[tuple[int, MetricPoint | None]]:
    """The points of a series with the gaps between them, but for the step that is not over."""
    step, found = metrics["step_s"], {point["at"]: point for point in series["points"]}
    if not found:
        return []
    return [(at, found.get(at)) for at in range(min(found), metrics["end"] - step + 1, step)]


def rate(metrics: Metrics) -> float | None:
    """Inferences a second of the whole fleet in the latest step that is over."""
    ends = [over_time(one, metrics)[-2:] for one in metrics["series"]]
    counts = [point["inferred"] for points in ends for _, point in points if point]
    steps_seen = max((len(points) for points in ends), default=0)
    return sum(counts) / (metrics["step_s"] * steps_seen) if counts else None


def latest_p95(metrics: Metrics) -> float | None:
    """The highest 95th percentile over the series' latest steps."""
    ends = [over_time(one, metrics)[-2:] for one in metrics["series"]]
    found = [point["p95_ms"] for points in ends for _, point in points if point]
    return max((value for value in found if value is not None), default=None)


def _subject(alert: AlertInfo) -> str:
    if alert["kind"] in {"device-offline", "security-event"}:
        return paths.device(alert["subject"])
    if alert["kind"] in {"rollout-halted", "gate-failed"}:
        return paths.rollout(alert["subject"])
    return ""


def _event(entry: AuditInfo, now: float) -> Event:
    at = dt.datetime.fromtimestamp(entry["at"], dt.UTC)
    is_today = at.date() == dt.datetime.fromtimestamp(now, dt.UTC).date()
    done = timeline([entry])[0]
    return Event(
        time=at.strftime("%H:%M:%S" if is_today else "%d %b %H:%M"),
        who=entry["actor"],
        what=words(entry),
        subject=entry["subject"],
        address=address_of(entry),
        why=done.why,
        tone=done.tone,
    )
