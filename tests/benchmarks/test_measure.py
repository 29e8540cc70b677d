"""How a benchmark prints: each row as it comes, one object with --json, and what Ctrl-C leaves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal
from benchmarks.measure import Row, main

def run(quick, model=None):
    yield Row("a.time", 2.0, "ms", peer="bare", peer_value=1.0, ratio=2.0, goal="at most 1 x",
              holds=False)
    yield Row("b.time", 3.0, "ms" if quick else "s", goal=str(model))
    os.kill(os.getpid(), signal.SIGINT) if model == ["stop"] else None
    yield Row("c.time", 4.0, "ms")

def options(parser):
    parser.add_argument("--model", action="append")

main("some", run, description="Some.", conditions={"threads": "1"}, options=options)
"""


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_page_is_a_table_with_the_machine_above_it() -> None:
    done = run()
    assert done.returncode == 0
    assert "threads 1" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("| `")]
    assert lines == [
        "| `a.time` | 2 ms | bare 1 ms | 2 | 1 | at most 1 x | no |",
        "| `b.time` | 3 s |  |  | 1 | None |  |",
        "| `c.time` | 4 ms |  |  | 1 |  |  |",
    ]
    assert "did not hold" in done.stderr


def test_json_is_one_object_and_nothing_else() -> None:
    done = run("--json", "--quick")
    page = json.loads(done.stdout)
    assert page["name"] == "some"
    assert [row["unit"] for row in page["rows"]] == ["ms"] * 3


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_leaves_what_was_measured(as_json: bool) -> None:
    done = run("--model", "stop", *(["--json"] if as_json else []))
    assert done.returncode == 130
    assert "Interrupted" in done.stderr
    assert "b.time" in done.stdout
    assert "c.time" not in done.stdout
    if as_json:
        assert len(json.loads(done.stdout)["rows"]) == 2
