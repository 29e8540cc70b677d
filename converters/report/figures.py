"""Which charts a report has, with what they are made of and what is said below them."""

import msgspec
from markupsafe import Markup

from cloud_sync.evidence import GateResult
from converters.candidates import Candidate
from converters.diagnosis import Diagnosis
from converters.recipe import FLOAT
from converters.report import charts
from converters.report.view import Race, View, gates_of

_MOST_ROWS = 12


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A chart with its title and caption, and what its labels may have had no room for."""

    title: str
    svg: Markup
    caption: str
    names: tuple[str, ...] = ()


def figures(view: View, race: Race) -> tuple[Figure, ...]:
    """The charts of one race."""
    made = (_accuracy(view, race), _latency(race), _pareto(view, race))
    return tuple(figure for figure in made if figure is not None)


def sensitivity_figure(diagnosis: Diagnosis) -> Figure:
    """The most sensitive nodes of one quantized file."""
    losses = diagnosis.sensitivity
    shown = min(len(losses), charts.MOST_NODES)
    title = f"Sensitive nodes of {diagnosis.move}"
    return Figure(
        title=title,
        svg=_trusted(charts.sensitivity_chart(losses, title=title)),
        caption=f"The {shown} of {len(losses)} nodes whose outputs lose most of the signal when "
        "they are quantized, each on exact inputs, over a few calibration samples. Those go "
        "back to float first.",
        names=tuple(f"{loss.name} ({loss.operator})" for loss in charts.most_sensitive(losses)),
    )


def _accuracy(view: View, race: Race) -> Figure | None:
    max_drop, metric = view.parts.request.max_drop, view.parts.metric.name
    raced = {(c.lane.artifact.digest, c.lane.runtime) for c in race.candidates}
    judged = sorted(gates_of(race), key=lambda j: ((j[1].artifact, j[2]) not in raced, _drop(j[3])))
    rows = [
        charts.Whisker(
            label=f"{number}. {attempt.move}",
            runtime=f"on {runtime}",
            value=gate.value or 0.0,
            low=gate.low if gate.low is not None else gate.value or 0.0,
            high=min(gate.high, 1.0) if gate.high is not None else gate.value or 0.0,
            gate=gate,
        )
        for number, attempt, runtime, gate in judged
    ]
    confidence = f"{100 * view.parts.request.confidence:g} %"
    left = len(rows) - _MOST_ROWS
    caption = (
        "Each interval is that of the drop beside float32 on the same samples, each end at "
        f"{confidence} confidence: the gate passes where none of it lies left of the green."
        + (f" The {left} that lost most are only in the list." if left > 0 else "")
    )
    if not rows:
        rows = [_own(view, c) for c in race.candidates]
        caption = f"Each interval is the score's own, at {confidence} confidence."
    if not rows:
        return None
    title = f"Accuracy ({metric}) for {race.title}"
    svg = charts.accuracy_chart(rows[:_MOST_ROWS], max_drop=max_drop, title=title)
    return Figure(title=f"Accuracy, {metric}", svg=_trusted(svg), caption=caption)


def _drop(gate: GateResult) -> float:
    return (gate.baseline or 0.0) - (gate.value or 0.0)


def _own(view: View, candidate: Candidate) -> charts.Whisker:
    score = view.score(candidate)
    return charts.Whisker(
        label=candidate.move,
        runtime=f"on {candidate.lane.runtime}",
        value=score.value,
        low=score.low,
        high=score.high,
    )


def _latency(race: Race) -> Figure | None:
    timed = [c for c in race.candidates if c.timing.milliseconds]
    lanes = sorted(timed, key=lambda c: c.timing.p50_ms)
    if not lanes:
        return None
    rows = [
        charts.Spread(
            label=f"{c.lane.artifact.weights} on {c.lane.runtime}",
            milliseconds=c.timing.milliseconds,
            is_float=c.lane.artifact.precision == FLOAT,
        )
        for c in lanes
    ]
    title = f"Latency for {race.title}"
    return Figure(
        title="Latency, last race",
        svg=_trusted(charts.latency_chart(rows, title=title)),
        caption="All lanes ran in turns, so that whatever else the machine did fell on each. "
        "The slowest 1 % are not drawn.",
    )


def _pareto(view: View, race: Race) -> Figure | None:
    timed = [c for c in race.candidates if c.timing.milliseconds]
    floats = [c for c in timed if c.lane.artifact.precision == FLOAT]
    if not floats:
        return None
    best = min(floats, key=lambda c: c.timing.p50_ms)
    # Speeds are measured beside float32 on the same runtime; on one scale they need one float32.
    relative = {c.lane.runtime: best.timing.p50_ms / c.timing.p50_ms for c in floats}
    raced = {
        (c.lane.artifact.digest, c.lane.runtime): best.timing.p50_ms / c.timing.p50_ms
        for c in timed
    }
    points = [
        charts.Point(
            label=c.lane.artifact.weights,
            runtime=c.lane.runtime,
            speed=relative[c.lane.runtime],
            drop=0.0,
            verdict=None,
        )
        for c in floats
    ]
    for number, attempt, runtime, gate in gates_of(race):
        if runtime not in relative:
            continue
        quick = attempt.speedups.get(runtime, 1.0) * relative[runtime]
        points.append(
            charts.Point(
                label=str(number),
                runtime=runtime,
                speed=raced.get((attempt.artifact, runtime), quick),
                drop=_drop(gate),
                verdict=gate.result,
            )
        )
    if len(points) == len(floats):
        return None
    unjudged = [str(n) for n, a in enumerate(race.attempts, start=1) if not a.accuracy]
    runtimes = list(dict.fromkeys(p.runtime for p in points))
    names = ("circle", "square", "triangle", "diamond")
    shapes = ", ".join(f"{names[i % 4]}: {name}" for i, name in enumerate(runtimes))
    caption = (
        f"Numbers are those of the list of what was tried; {shapes}. The line joins what nothing "
        "else beats in both. A second number is a loss that lies further down."
    )
    if unjudged:
        caption += f" Not judged: {', '.join(unjudged)}."
    svg = charts.pareto_chart(
        points,
        max_drop=view.parts.request.max_drop,
        reference=f"{best.lane.artifact.weights} on {best.lane.runtime}",
        title=f"Speed and accuracy for {race.title}",
    )
    return Figure(title="Speed against accuracy", svg=_trusted(svg), caption=caption)


def _trusted(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 -- an XML library wrote it, with its texts escaped
