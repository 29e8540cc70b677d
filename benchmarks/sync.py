"""The wire beside its bare libraries: outbox, telemetry, trust, transfer and deltas.

Each part is a module of its own with a `rows(quick)`; this one only runs them in turn. `--part`
runs some of them alone.
"""

import argparse
from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks.measure import Row, main, versions

PARTS = ("outbox", "telemetry", "trust", "transfer", "delta")


def run(quick: bool, part: list[str] | None = None) -> Iterator[Row]:
    """Measure the parts that are asked for, or all."""
    for name in part or PARTS:
        rows: Callable[[bool], Iterator[Row]] = import_module(f"benchmarks.sync_{name}").rows
        yield from rows(quick)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="measure only this part (repeatable)"
    )


if __name__ == "__main__":
    main(
        "sync",
        run,
        description="The wire beside its bare libraries, part by part.",
        conditions=versions("sqlalchemy", "cryptography", "msgspec", "paho-mqtt", "httpx", "tuf"),
        options=_options,
    )
