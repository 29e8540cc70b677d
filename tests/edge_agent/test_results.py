"""The results file: one line a result, bounded, never in the way."""

import json
import threading
from pathlib import Path

import pytest

from edge_agent.results import ResultsFile


def lines(path: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_result_is_a_line_and_a_restart_appends(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for n in range(2):
        results = ResultsFile(path)
        results.write({"n": n})
        results.close()
    assert lines(path) == [{"n": 0}, {"n": 1}]


def test_it_is_rotated_at_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = ResultsFile(path, max_bytes=100)
    for n in range(50):
        results.write({"n": n})
    results.close()
    kept = lines(path.with_name("results.jsonl.1")) + lines(path)
    assert kept[-1] == {"n": 49}
    assert [row["n"] for row in kept] == list(range(50))[-len(kept) :]
    assert all(f.stat().st_size <= 100 for f in tmp_path.iterdir())


def test_workers_of_several_models_share_it(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = ResultsFile(path, max_bytes=1 << 20)
    threads = [
        threading.Thread(target=lambda k=k: [results.write({"k": k, "n": n}) for n in range(300)])
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.close()
    assert len(lines(path)) == 900


def test_a_full_disk_loses_lines_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    results = ResultsFile(Path("/dev/full"))
    for _ in range(3):
        results.write({"n": 1})
    results.close()
    assert len(caplog.records) == 1  # said once, not for every frame


def test_a_rotation_that_fails_is_made_up_for_when_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "data" / "results.jsonl"
    path.parent.mkdir()
    results = ResultsFile(path, max_bytes=39)
    for n in range(4):
        results.write({"n": n})
    path.parent.rename(tmp_path / "away")  # neither renamed nor opened again
    for n in range(3):
        results.write({"lost": n})
    (tmp_path / "away").rename(path.parent)
    results.write({"n": 9})
    results.close()
    assert lines(path)[-1] == {"n": 9}
    assert lines(path.with_name("results.jsonl.1"))


def test_it_is_made_as_soon_as_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "later" / "results.jsonl"
    results = ResultsFile(path)
    results.write({"lost": 1})
    path.parent.mkdir()
    results.write({"n": 1})
    results.close()
    assert lines(path) == [{"n": 1}]
