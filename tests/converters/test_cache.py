"""What the cache keeps, and that it never answers with anything else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from converters.cache import Cache, default_cache


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_put_is_found_by_exactly_its_parts(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("artifact", ["model", {"a": 1}], b"bytes")
    assert cache.get("artifact", ["model", {"a": 1}]) == b"bytes"
    assert cache.get("artifact", ["model", {"a": 2}]) is None
    assert cache.get("times", ["model", {"a": 1}]) is None


def test_a_damaged_entry_is_removed_and_not_believed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("artifact", ["model"], b"bytes")
    [entry] = entries(tmp_path)
    data = bytearray(entry.read_bytes())
    data[-1] ^= 1
    entry.write_bytes(data)
    assert cache.get("artifact", ["model"]) is None
    assert entries(tmp_path) == []


@pytest.mark.parametrize("length", [0, 10, 32])
def test_an_entry_that_is_cut_short_is_not_believed(tmp_path: Path, length: int) -> None:
    cache = Cache(tmp_path)
    cache.put("artifact", ["model"], b"bytes")
    [entry] = entries(tmp_path)
    os.truncate(entry, length)
    assert cache.get("artifact", ["model"]) is None


def test_a_full_disk_keeps_nothing_and_harms_nobody(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; "
        "from converters.cache import Cache; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "c = Cache(Path(sys.argv[1])); c.put('a', 1, b'x' * 5000); print(c.get('a', 1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "None"
    assert entries(tmp_path) == []


def test_without_a_folder_nothing_is_kept() -> None:
    cache = Cache(None)
    cache.put("a", 1, b"x")
    assert cache.get("a", 1) is None


def test_the_users_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "mine"))
    default_cache().put("a", 1, b"x")
    assert len(entries(tmp_path / "mine")) == 1
    monkeypatch.setenv("EDGEML_CACHE", "")
    default_cache().put("a", 2, b"x")
    monkeypatch.delenv("EDGEML_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    default_cache().put("a", 3, b"x")
    assert len(entries(tmp_path / "xdg" / "edgeml")) == 1
