"""What compilers said of files for accelerators, as plain rows."""

from collections.abc import Iterator, Sequence

import msgspec

from cloud_sync.evidence import CompileReport, Estimate
from converters.backends.interface import Offer
from converters.candidates import Candidate
from converters.report import words
from converters.weighing import cells

_MOST_LEFT = 20


class Compilation(msgspec.Struct, frozen=True, kw_only=True):
    """One compiled file: names with texts, and the nodes that stay on the CPU with the reason.

    `pictures` are SVG of our own making. `weighed` are the ways to build it, the first line their
    heads, and `weighing` is the picture of them.
    """

    target: str
    facts: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...] = ()
    more_left: int = 0
    pictures: tuple[str, ...] = ()
    weighed: tuple[tuple[str, ...], ...] = ()
    weighing: str = ""


def compilations(candidates: Sequence[Candidate]) -> tuple[Compilation, ...]:
    """Every compiled file that was judged, in the order of the targets."""
    return tuple(
        _compilation(candidate, candidate.compiled)
        for candidate in candidates
        if candidate.compiled is not None
    )


def estimates(candidate: Candidate) -> Iterator[str]:
    """What the compiler expects, in a sentence that says so; nothing where it says nothing."""
    report = candidate.compiled.report if candidate.compiled else None
    if report is not None and report.estimates:
        yield f"{expected(report)}."


def expected(report: CompileReport) -> str:
    """The first estimates and who made them."""
    told = report.estimates[:_TOLD]
    if len({estimate.source for estimate in told}) == 1:
        said = ", ".join(f"{e.name} {amount(e)}" for e in told)
        return f"Estimated by {told[0].source}, not measured: {said}"
    said = ", ".join(f"{e.name} {amount(e)} ({e.source})" for e in told)
    return f"Estimated, not measured: {said}"


_TOLD = 4


def amount(estimate: Estimate) -> str:
    """An estimate with its unit.

    >>> amount(Estimate(name="SRAM", value=51840.0, unit="bytes", source="Vela"))
    '51.8 kB'
    >>> amount(Estimate(name="cycles of the NPU", value=185542.0, unit="cycles", source="Vela"))
    '185,542'
    """
    if estimate.unit == "bytes":
        return words.size(round(estimate.value))
    is_count = estimate.value == round(estimate.value)
    value = words.count(round(estimate.value)) if is_count else words.number(estimate.value)
    is_said = estimate.unit in estimate.name or estimate.name in estimate.unit
    return value if is_said else f"{value} {estimate.unit}"


def _compilation(candidate: Candidate, offer: Offer) -> Compilation:
    report, documents = offer.report, offer.documents
    placement = report.placement
    facts = [
        ("Compiler", report.compiler),
        ("Told", ", ".join(f"{name} {value}" for name, value in report.settings.items() if value)),
        ("Compiled in", f"{words.number(report.seconds)} s on the build host"),
        ("Checked as", str(candidate.verification)),
    ]
    if placement is not None:
        operators = f"{placement.offloaded} of {placement.operators} operators"
        macs = f"{words.share(placement.mac_share)} of the multiply-accumulates"
        facts.append(("On the accelerator", f"{operators}, {macs}"))
    facts += [(f"Estimated {e.name}", f"{amount(e)} ({e.source})") for e in report.estimates]
    facts += [("Note", remark) for remark in report.remarks]
    facts.append(("Kept in the evidence", ", ".join(sorted(documents))))
    left = placement.left if placement else ()
    return Compilation(
        target=f"{candidate.target.name}: {candidate.move}",
        facts=tuple((name, text) for name, text in facts if text),
        left=tuple((f"{n.node} ({n.operator})", n.reason) for n in left[:_MOST_LEFT]),
        more_left=max(0, len(left) - _MOST_LEFT),
        pictures=tuple(
            path.read_text("utf-8")
            for name, path in sorted(documents.items())
            if name.endswith(".svg")
        ),
        weighed=tuple(map(tuple, cells(report.alternatives))),
        weighing=_weighing(candidate, report),
    )


def _weighing(candidate: Candidate, report: CompileReport) -> str:
    """The picture of what was traded; empty where nothing was."""
    from converters.report.charts import tradeoff_chart

    if len(report.alternatives) < 2:  # noqa: PLR2004 -- of one there is nothing to compare
        return ""
    return tradeoff_chart(report.alternatives, title=f"Ways to build {candidate.target.name}")
