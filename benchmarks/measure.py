"""How every benchmark measures and reports: interleaved, warmed up, as ratios with a spread.

A benchmark gives `interleave` one callable for edgeml and one for its peer, each returning a
figure; they run in turns, so that a noisy machine disturbs both alike. A `Row` holds the
medians, their ratio and its spread over the rounds, and `main` prints the page or, with
`--json`, one object and nothing else.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

MIN_ROUNDS = 7


@dataclass(frozen=True)
class Row:
    """One metric: edgeml's value, the peer's, and value / peer with its quartiles."""

    metric: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    n: int = 1
    goal: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Rounds:
    """Figures of edgeml and of its peer, round by round."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours over the peer's, each round by itself."""
        return [a / b for a, b in zip(self.ours, self.peer, strict=True)]

    @property
    def differences(self) -> list[float]:
        """Ours minus the peer's, each round by itself."""
        return [a - b for a, b in zip(self.ours, self.peer, strict=True)]


def interleave(ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> Rounds:
    """Run both in turns, after one warm-up of each; the order alternates."""
    ours()
    peer()
    a: list[float] = []
    b: list[float] = []
    for index in range(max(rounds, MIN_ROUNDS)):
        if index % 2:
            b.append(peer())
            a.append(ours())
        else:
            a.append(ours())
            b.append(peer())
    return Rounds(tuple(a), tuple(b))


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def ratio_row(
    metric: str,
    rounds: Rounds,
    *,
    unit: str,
    peer: str,
    goal: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """A row whose figure is the ratio of edgeml to its peer; the goal is on the ratio."""
    ratio = statistics.median(rounds.ratios)
    holds = None
    if at_least is not None:
        holds = ratio >= at_least
    elif at_most is not None:
        holds = ratio <= at_most
    return Row(
        metric=metric,
        value=statistics.median(rounds.ours),
        unit=unit,
        peer=peer,
        peer_value=statistics.median(rounds.peer),
        ratio=ratio,
        spread=quartiles(rounds.ratios),
        n=len(rounds.ours),
        goal=goal,
        holds=holds,
    )


def machine() -> dict[str, str]:
    """Where the figures were measured."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages that a figure depends on."""
    return {package: version(package) for package in packages}


def main(
    name: str,
    run: Callable[..., Iterable[Row]],
    *,
    description: str,
    conditions: Mapping[str, str],
    options: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> None:
    """Parse `--quick` and `--json`, run the benchmark, and print its rows as they come.

    Ctrl-C ends it with what was measured so far.

    Args:
        name: the benchmark's module name.
        run: takes `quick`, and by name what `options` adds, and gives the rows.
        description: what `--help` says.
        conditions: versions and settings that belong to the figures.
        options: adds options of this benchmark alone.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="a minute instead of a few")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options(parser)
    arguments = vars(parser.parse_args())
    as_json, quick = arguments.pop("json"), arguments.pop("quick")
    where = machine() | dict(conditions)
    if not as_json:
        told = ", ".join(f"{key} {value}" for key, value in where.items())
        print(f"## {name}\n\n{told}\n\n{_HEAD}", flush=True)
    rows: list[Row] = []
    interrupted = False
    try:
        for row in run(quick, **arguments):
            rows.append(row)
            if not as_json:
                print(_line(row), flush=True)
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        print(json.dumps({"name": name, "machine": where, "rows": [asdict(row) for row in rows]}))
    elif any(row.holds is False for row in rows):
        print("\nA goal marked 'no' did not hold in this run.", file=sys.stderr)
    if interrupted:
        print("\nInterrupted: these are the rows that were done.", file=sys.stderr)
        sys.exit(130)


_HEAD = """\
| metric | edgeml | peer | ratio (quartiles) | n | goal | holds |
|---|---|---|---|---|---|---|"""


def _line(row: Row) -> str:
    peer = f"{row.peer} {row.peer_value:.4g} {row.unit}" if row.peer_value is not None else ""
    spread = f" ({row.spread[0]:.3g} to {row.spread[1]:.3g})" if row.spread else ""
    ratio = f"{row.ratio:.3g}{spread}" if row.ratio is not None else spread.strip()
    holds = {True: "yes", False: "no", None: ""}[row.holds]
    return (
        f"| `{row.metric}` | {row.value:.4g} {row.unit} | {peer} | {ratio} "
        f"| {row.n} | {row.goal} | {holds} |"
    )
