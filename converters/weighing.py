"""The ways to build a model for a target, by its shapes alone: `edgeml targets T --model M`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from cloud_sync.evidence import Alternative
from converters.axes import fix_axes
from converters.backends import backend
from converters.backends.options import own_options, refuse_unknown
from converters.model import load_model
from edgeml.errors import UserError
from hardware.profiles import select

_HEAD = ("", "", "cycles", "MHz", "latency ms", "fullest")
_LEGEND = (
    "Estimated, at a clock that is yet to be reached. →: what would be built; *: no other is as "
    "good in all of it."
)
_NOTHING_FITS = (
    "Estimated. Nothing fits: choose a larger FPGA or a smaller model, or allow more by --option "
    "(share, latency_ms, lanes, weights, architecture), where you narrowed it."
)
_MUCH = 9.99  # of a budget; beyond that the figure says nothing more


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """What a target could run a model on, estimated; one is chosen, or nothing fits."""

    target: str
    alternatives: tuple[Alternative, ...]


def weigh(
    names: Sequence[str], path: Path, options: Mapping[str, str], dims: Mapping[str, int]
) -> tuple[Weighed, ...]:
    """The alternatives of each target that can tell them without data and tools.

    Raises:
        ModelError: the file is no model, or cannot be computed there.
        TargetError: there is no such target.
        UserError: none of the targets can tell, or an option cannot be used.
    """
    targets = select(names)
    refuse_unknown(options, targets)
    model = fix_axes(load_model(path), dims)
    found = []
    for target in targets:
        serving = backend(target.backend) if target.backend else None
        if serving is None or not hasattr(serving, "weigh"):
            continue
        told = serving.weigh(target, own_options(serving, options), model.data)
        if told:
            found.append(Weighed(target=target.name, alternatives=told))
    if not found:
        raise UserError(
            f"Nothing can be told of a model for {', '.join(names) or 'all targets'}.",
            why="Only the engines of FPGA targets are weighed without data.",
            fix="Name FPGA targets: edgeml targets fpga --model MODEL.",
        )
    return tuple(found)


def weighed_text(found: Iterable[Weighed]) -> str:
    """A table for each target."""
    return "\n\n".join(f"{each.target}\n{table(each.alternatives)}" for each in found)


def table(alternatives: Sequence[Alternative]) -> str:
    """Alternatives for people; `→` is the chosen one, `*` what no other one beats."""
    rows = cells(alternatives)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place in {0, 1, len(widths) - 1} else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    has_choice = any(each.chosen for each in alternatives)
    return "\n".join([*lines, _LEGEND if has_choice else _NOTHING_FITS])


def cells(alternatives: Sequence[Alternative]) -> list[list[str]]:
    """The table's cells, the first line its heads; resources that nothing takes are left out."""
    resources = [
        name
        for name in next((each.resources for each in alternatives if each.resources), ())
        if any(each.resources.get(name) for each in alternatives)
    ]
    return [[*_HEAD, *resources, ""], *(_row(each, resources) for each in alternatives)]


def _row(each: Alternative, resources: Sequence[str]) -> list[str]:
    figures = ["-"] * (len(_HEAD) - 2 + len(resources))
    if each.cycles is not None and each.latency_ms is not None and each.share is not None:
        figures = [
            f"{each.cycles:,}",
            f"{each.clock_mhz:g}",
            f"{each.latency_ms:.3g}",
            f"{100 * each.share:.0f} %" if each.share < _MUCH else "> 999 %",
            *(f"{each.resources[name]:,}" for name in resources),
        ]
    return [
        "→" if each.chosen else "*" if each.best else "",
        each.name,
        *figures,
        f"no: {each.lacking}" if each.lacking else "",
    ]
