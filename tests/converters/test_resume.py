"""The command again: from the cache, after a kill, beside another one, over a damaged cache."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Data = tuple[Path, Path]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(convnet: Path, quarters_data: Data, tmp_path: Path) -> Start:
    """Starts the command; all share one cache."""

    def begin(out: str, **environment: str) -> subprocess.Popen[str]:
        command = [
            *(str(Path(sys.executable).with_name("edgeml")), "convert", str(convnet), "--json"),
            *("--calibration", str(quarters_data[0]), "--evaluate", str(quarters_data[1])),
            *("--target", "cpu", "--runtime", "onnxruntime", "--min-speedup", "0"),
            *("--name", "toy", "--version", "1", "--out", str(tmp_path / out)),
        ]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"EDGEML_CACHE": str(tmp_path / "cache")} | environment,
        )

    return begin


def finished(child: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    return json.loads(out), err


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def int8_files(release: dict[str, Any]) -> set[str]:
    return {Path(v["file"]).name for v in release["variants"] if v["precision"] == "int8"}


def test_the_same_command_again_measures_nothing_and_gives_the_same_bytes(
    start: Start, tmp_path: Path
) -> None:
    first, _ = finished(start("out"))
    (tmp_path / "out").rename(tmp_path / "before")
    second, told = finished(start("out"))
    assert second == first
    assert contents(tmp_path / "out") == contents(tmp_path / "before")
    assert "Calibrating" not in told
    assert "Evaluating" not in told


def test_a_conversion_that_was_killed_goes_on_where_it_was(start: Start, tmp_path: Path) -> None:
    killed = start("out")
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("Racing"):
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "out").exists()
    kept = set(contents(tmp_path / "cache"))
    assert kept
    release, told = finished(start("out"))
    assert int8_files(release)
    assert "Evaluating" not in told
    assert kept <= set(contents(tmp_path / "cache"))


def test_two_at_once_share_a_cache(start: Start, tmp_path: Path) -> None:
    children = [start("one"), start("two")]
    one, two = (finished(child)[0] for child in children)
    again, told = finished(start("again"))
    assert int8_files(one) == int8_files(two) == int8_files(again)
    assert again["release"] in {one["release"], two["release"]}
    assert "Calibrating" not in told


def test_a_damaged_cache_is_made_anew(start: Start, tmp_path: Path) -> None:
    first, _ = finished(start("first"))
    for name in contents(tmp_path / "cache"):
        path = tmp_path / "cache" / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    second, told = finished(start("second"))
    assert int8_files(second) == int8_files(first)
    assert "Calibrating" in told


def test_a_cache_that_cannot_be_written_harms_nobody(start: Start, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file stands in its place")
    release, _ = finished(start("out"))
    assert int8_files(release)
