"""The fleet: a whole rollout, ingest, the API under load, memory, and the engine.

The parts are measured in `benchmarks.fleet_rollout` (beside a bound), `benchmarks.fleet_ingest`
(beside a bare consumer) and `benchmarks.fleet_decide`. `--only` chooses among them, `--devices`
sets how many devices the rollout has.
"""

import argparse
from collections.abc import Iterator

from benchmarks import fleet_decide, fleet_ingest, fleet_rollout
from benchmarks.measure import Row, main, versions

PARTS = ("rollout", "ingest", "decide")


def run(quick: bool, only: list[str] | None = None, devices: int = 0) -> Iterator[Row]:
    """Measure the parts that are wanted, all by default."""
    wanted = only or PARTS
    if "decide" in wanted:
        yield from fleet_decide.rows(quick)
    if "ingest" in wanted:
        yield from fleet_ingest.rows(quick)
    if "rollout" in wanted:
        yield from fleet_rollout.rows(quick, devices)


def options(parser: argparse.ArgumentParser) -> None:
    """What this benchmark alone takes."""
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given again")
    parser.add_argument("--devices", type=int, default=0, help="how many the rollout has")


if __name__ == "__main__":
    main(
        "fleet",
        run,
        description="A whole rollout, ingest, the API under load, and the engine.",
        conditions=versions("sqlalchemy", "cryptography", "msgspec", "uvicorn", "aiohttp", "tuf"),
        options=options,
    )
