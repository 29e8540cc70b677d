"""docs/faults.md names every test of a fault, and how often it runs."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ROW = re.compile(r"^\| .+ \| `(test_\w+\.py::test_\w+)` \| (\d+) \| .+ \|$", re.MULTILINE)


def test_the_table_of_faults_is_what_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "tests/faults"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = Counter(
        re.findall(r"^tests/faults/(test_\w+\.py::test_\w+)", done.stdout, re.MULTILINE)
    )
    del found[f"test_docs.py::{test_the_table_of_faults_is_what_runs.__name__}"]
    told = _ROW.findall((ROOT / "docs" / "faults.md").read_text())
    assert {test: int(runs) for test, runs in told} == dict(found)
    assert len(told) == len(found)
