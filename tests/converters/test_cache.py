"""What the cache keeps, and that it never answers with anything else."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from converters import cache as caches
from converters import surroundings as around
from converters.cache import Cache, default_cache
from edgeml.errors import UserError


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


def test_another_version_of_edgeml_or_its_packages_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache(tmp_path).put("a", 1, b"x")
    monkeypatch.setattr(caches, "surroundings", lambda: "others")
    assert Cache(tmp_path).get("a", 1) is None


def test_what_other_programs_made_lasts_beyond_a_version_of_edgeml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache(tmp_path).lasting.put("a", 1, b"x")
    monkeypatch.setattr(caches, "surroundings", lambda: "others")
    assert Cache(tmp_path).lasting.get("a", 1) == b"x"
    assert Cache(tmp_path).lasting.get("a", 2) is None
    assert Cache(tmp_path).get("a", 1) is None


def test_each_package_and_each_line_of_code_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told() -> str:
        around.surroundings.cache_clear()
        return around.surroundings()

    now = told()
    assert told() == now
    assert around._required() >= {"edgeml", "numpy", "onnx", "onnxruntime", "openvino", "scipy"}
    for package in around._required():
        monkeypatch.setattr(around, "_installed", lambda name, other=package: name == other)
        assert told() != now
        monkeypatch.undo()
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "gates.py")
    )
    assert told() != now
    monkeypatch.undo()
    assert told() == now


def test_a_folder_holds_so_many_bytes_and_loses_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = Cache(tmp_path, most_bytes=10_000)
    for index in range(8):
        cache.put("a", index, bytes(1000))
        for entry in entries(tmp_path):
            os.utime(entry, (entry.stat().st_atime, entry.stat().st_mtime - 10))
    assert cache.get("a", 0) == bytes(1000)
    for index in range(8, 12):
        cache.put("a", index, bytes(1000))
    assert sum(entry.stat().st_size for entry in entries(tmp_path)) <= 10_000
    assert cache.get("a", 0) == bytes(1000)
    assert cache.get("a", 1) is None
    assert cache.get("a", 11) == bytes(1000)


def test_what_others_left_in_the_folder_counts_and_other_folders_do_not(tmp_path: Path) -> None:
    Cache(tmp_path).put("a", 1, bytes(900))
    leftover = entries(tmp_path)[0].parent / ".half-written"
    leftover.write_bytes(bytes(5000))
    os.utime(leftover, (1, 1))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").write_bytes(bytes(9000))
    Cache(tmp_path, most_bytes=4000).put("a", 2, bytes(900))
    assert not leftover.exists()
    assert Cache(tmp_path).get("a", 1) == bytes(900)
    assert (tmp_path / "models" / "mine").exists()


def test_what_is_larger_than_the_bound_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, most_bytes=100)
    cache.put("a", 1, bytes(50))
    cache.put("a", 2, bytes(1000))
    assert cache.get("a", 1) == bytes(50)
    assert cache.get("a", 2) is None


def test_a_folder_that_is_only_to_be_read_serves_and_keeps_nothing(tmp_path: Path) -> None:
    Cache(tmp_path).put("a", 1, b"x")
    code = (
        "import os, sys; from pathlib import Path; from converters.cache import Cache; "
        "c = Cache(Path(sys.argv[1])); c.get('a', 0); "
        "os.geteuid() or os.seteuid(65534); "
        "c.put('a', 2, b'y'); print(c.get('a', 1), c.get('a', 2))"
    )
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    above = [p for p in tmp_path.parents if Path(tempfile.gettempdir()) in p.parents]
    before = {path: path.stat().st_mode for path in (*folders, *above)}
    for path in folders:
        path.chmod(0o555)
    for path in above:
        path.chmod(0o755)
    for entry in entries(tmp_path):
        entry.chmod(0o444)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        )
    finally:
        for path, mode in before.items():
            path.chmod(mode)
    assert done.stdout.strip() == "b'x' None"


def test_many_at_once_read_only_what_one_of_them_wrote(tmp_path: Path) -> None:
    bodies = {bytes([kind]) * 20_000 for kind in range(8)}

    def write_and_read(body: bytes) -> set[bytes | None]:
        cache, seen = Cache(tmp_path, most_bytes=300_000), set()
        for index in range(40):
            cache.put("a", index % 5, body)
            seen.add(cache.get("a", index % 5))
        return seen

    with ThreadPoolExecutor(len(bodies)) as pool:
        seen = set().union(*pool.map(write_and_read, bodies))
    assert seen <= bodies | {None}


def test_a_bound_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_CACHE_MB", "much")
    with pytest.raises(UserError, match="'much', which is no number"):
        default_cache()
