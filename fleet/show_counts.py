"""What was counted and summed up, as text for a terminal."""

from typing import TYPE_CHECKING

from fleet.show import table, when

if TYPE_CHECKING:
    from fleet.services.census import Census
    from fleet.services.metrics import MetricPoint, Metrics


def census_text(census: "Census", label: str = "") -> str:
    """The devices counted: by a label where one was asked for, by class, by what they run."""
    parts = [f"{census['devices']:,} devices, {census['online']:,} online"]
    if label:
        rows = [
            [one["value"] or "(none)", f"{one['devices']:,}", f"{one['online']:,}"]
            for one in census["labels"]
        ]
        parts.append(table([label, "devices", "online"], rows))
    classes = [
        [one["hardware_class"] or "unknown", f"{one['devices']:,}", f"{one['online']:,}"]
        for one in census["classes"]
    ]
    if classes:
        parts.append(table(["hardware class", "devices", "online"], classes))
    running = [
        [
            f"{one['model']}:{one['version']}",
            one["hardware_class"] or "unknown",
            f"{one['devices']:,}",
            f"{one['updating']:,}",
        ]
        for one in census["running"]
    ]
    if running:
        parts.append(table(["runs", "hardware class", "devices", "updating"], running))
    return "\n\n".join(parts)


def metrics_text(metrics: "Metrics") -> str:
    """Series of points, oldest first, each with its total below."""
    if not metrics["series"]:
        return (
            f"Nothing was reported from {when(metrics['begin'])} to {when(metrics['end'])}. "
            "Devices send their figures with each window of telemetry: edgeml devices list"
        )
    stage = metrics["stage"]
    head = ["from", "inferred", "a second", f"{stage} p50", "p95", "p99 ms", "errors", "J each"]
    parts = []
    for series in metrics["series"]:
        of = ", ".join(f"{name} {value or '-'}" for name, value in series["of"].items())
        rows = [_row(when(point["at"]), point) for point in series["points"]]
        rows.append(_row("all", series["total"]))
        parts.append("\n".join([of or "all devices", table(head, rows)]))
    if metrics["cut"]:
        parts.append("There are more series than are shown: ask for fewer, with --selector or --by")
    return "\n\n".join(parts)


def _row(name: str, point: "MetricPoint") -> list[str]:
    return [
        name,
        f"{point['inferred']:,}",
        f"{point['per_s']:.1f}",
        *(_figure(point[at]) for at in ("p50_ms", "p95_ms", "p99_ms")),
        "-" if point["error_rate"] is None else f"{point['error_rate']:.2%}",
        _figure(point["energy_per_inference_j"]),
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
