"""A folder in which pictures appear: each once, and none that is half written."""

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources import check_source, folders
from edge_agent.sources.folders import is_whole
from edgeml.errors import DeviceError
from tests.edge_agent.processes import eventually
from tests.edge_agent.sources.seen import Seen, config


def picture(shade: int, size: tuple[int, int] = (24, 32), suffix: str = ".jpg") -> bytes:
    noise = np.random.default_rng(shade).integers(0, 30, (*size, 3), np.uint8)
    return cv2.imencode(suffix, noise + np.uint8(shade))[1].tobytes()


def watch(folder: Path) -> Seen:
    seen = Seen(config(f"watch://{folder}"))
    eventually(lambda: seen.source.status().state == "running")
    return seen


def test_what_appears_is_seen_once_and_what_was_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "old.jpg").write_bytes(picture(1))
    seen = watch(tmp_path)
    (tmp_path / "b.tmp").write_bytes(picture(100))
    os.replace(tmp_path / "b.tmp", tmp_path / "b.jpg")
    eventually(lambda: seen.frames)
    (tmp_path / "a.png").write_bytes(picture(200, (48, 16), ".png"))
    eventually(lambda: len(seen.frames) == 2)
    time.sleep(3 * folders.LOOK_S)
    assert [frame.image.shape for frame in seen.frames] == [(24, 32, 3), (48, 16, 3)]
    assert [frame.index for frame in seen.frames] == [0, 1]
    assert abs(seen.frames[0].image.mean() - 114) < 5
    seen.stop()


def test_a_file_written_anew_is_another_picture(tmp_path: Path) -> None:
    seen = watch(tmp_path)
    for shade in (50, 150):
        (tmp_path / "new.tmp").write_bytes(picture(shade))
        os.replace(tmp_path / "new.tmp", tmp_path / "latest.jpg")
        eventually(lambda shade=shade: seen.frames and seen.frames[-1].image.mean() > shade)
    seen.stop()
    assert len(seen.frames) == 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_a_half_written_file_is_not_read_until_it_is_whole(tmp_path: Path, suffix: str) -> None:
    seen = watch(tmp_path)
    data = picture(100, (64, 64), suffix)
    with (tmp_path / f"slow{suffix}").open("wb") as stream:
        for part in range(4):
            stream.write(data[part * len(data) // 4 : (part + 1) * len(data) // 4])
            stream.flush()
            # Longer than a file has to be still: only its end tells.
            time.sleep(2 * folders.SETTLED_S if part < 3 else 0)
            assert not seen.frames
    eventually(lambda: seen.frames)
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(seen.frames[0].image, whole)
    seen.stop()


def test_what_never_becomes_whole_or_is_no_picture_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folders, "DAMAGED_S", 0.5)
    seen = watch(tmp_path)
    (tmp_path / "half.jpg").write_bytes(picture(9)[:300])
    (tmp_path / "none.png").write_bytes(b"hello")
    eventually(lambda: caplog.text.count("is left out") == 2)
    (tmp_path / "good.jpg").write_bytes(picture(9))
    eventually(lambda: len(seen.frames) == 1)
    assert seen.source.error == ""
    seen.stop()


def test_a_picture_written_anew_in_its_place_is_seen(tmp_path: Path) -> None:
    (tmp_path / "latest.bmp").write_bytes(picture(1, suffix=".bmp"))
    os.utime(tmp_path, (1e9, 1e9))
    seen = watch(tmp_path)
    (tmp_path / "latest.bmp").write_bytes(picture(150, suffix=".bmp"))
    assert tmp_path.stat().st_mtime == 1e9
    eventually(lambda: seen.frames)
    assert seen.frames[0].image.mean() > 150
    seen.stop()


def test_a_folder_in_which_nothing_happens_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = os.scandir

    def counted(path: Any) -> Any:
        if str(path) == str(tmp_path):
            reads.append(str(path))
        return read(path)

    monkeypatch.setattr(os, "scandir", counted)
    for index in range(20):
        (tmp_path / f"{index}.bmp").write_bytes(picture(index, suffix=".bmp"))
    os.utime(tmp_path, (1e9, 1e9))
    reader = folders.WatchReader(tmp_path, threading.Event())
    assert len(reads) == 1
    for _ in range(500):
        assert reader._next() is None
    assert len(reads) == 1
    # A change is seen at the next look, and then again while the clock may hide another.
    (tmp_path / "new.bmp").write_bytes(picture(99, suffix=".bmp"))
    eventually(lambda: reader._next() is not None)
    assert len(reads) > 1


def test_a_damaged_picture_of_a_folder_that_is_played_is_left_out_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index, data in enumerate([b"no picture", picture(10), b"", picture(90)]):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    seen = Seen(config(f"images://{tmp_path}", fps=100.0))
    eventually(lambda: len(seen.frames) >= 8)
    seen.stop()
    assert [frame.image.mean() > 80 for frame in seen.frames[:4]] == [False, True, False, True]
    assert caplog.text.count("0.jpg is left out") == 1
    assert caplog.text.count("2.jpg is left out") == 1
    assert caplog.text.count("is left out") == 2


def test_a_folder_of_damaged_pictures_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    seen = Seen(config(f"images://{tmp_path}"))
    eventually(lambda: "no image that can be decoded" in seen.source.error)
    assert seen.source.status().state == "lost"
    seen.stop()


def test_a_folder_that_is_unplugged_is_lost_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    seen = watch(folder)
    shutil.rmtree(folder)
    eventually(lambda: seen.source.status().state == "lost")
    assert "There is no folder" in seen.source.error
    folder.mkdir()
    eventually(lambda: seen.source.status().state != "lost" or _give(folder, seen))
    eventually(lambda: _give(folder, seen))
    assert seen.source.status().state == "running"
    seen.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("source-belt")]


def _give(folder: Path, seen: Seen) -> bool:
    """Another picture; whether any was seen. What comes before the folder is watched is old."""
    (folder / f"{time.monotonic_ns()}.jpg").write_bytes(picture(3))
    return bool(seen.frames)


def test_a_folder_that_is_no_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="cannot be read"):
        check_source(config(f"watch://{tmp_path / 'file'}"))


@given(st.sampled_from([".jpg", ".png", ".webp", ".bmp"]), st.floats(0, 0.98))
def test_no_beginning_of_a_picture_is_a_whole_one(suffix: str, share: float) -> None:
    data = picture(77, (32, 32), suffix)
    assert is_whole(data)
    assert not is_whole(data[: int(len(data) * share)])
