"""What benchmarks of `edgeml convert` share: which targets and models, and a word of progress."""

import argparse
import sys


def options(parser: argparse.ArgumentParser) -> None:
    """Let `--model` and `--target` choose, each more than once."""
    for name in ("model", "target"):
        parser.add_argument(
            f"--{name}", action="append", metavar="NAME", help=f"this {name}; more than once"
        )


def say(benchmark: str, what: str) -> None:
    """Tell on standard error what is being measured, or is not."""
    print(f"benchmarks.{benchmark}: {what}", file=sys.stderr, flush=True)
