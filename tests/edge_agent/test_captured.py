"""Frames are kept as the capture policy says: chosen, bounded in rate and bytes, never a brake."""

import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from cloud_sync.messages import CapturePolicy
from edge_agent.captured import CapturedFrames, is_wanted
from edge_agent.mailbox import Frame
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, UNSURE, Scene

LEFT_HALF = b"""
[region]
x = 0.0
y = 0.0
width = 0.5
height = 1.0
"""


def frame(index: int, image: Any = None, source: str = "belt") -> Frame:
    picture = np.full((8, 8, 3), index % 256, np.uint8) if image is None else image
    return Frame(source=source, index=index, captured=0.0, image=picture)


def line(index: int, **more: Any) -> dict[str, Any]:
    return {"model": "digits", "t": 1_795_279_438.0 + index, "frame": index, **more}


@pytest.mark.parametrize(
    ("policy", "number", "said", "wanted"),
    [
        (CapturePolicy(), 1, {"confident": False}, True),
        (CapturePolicy(), 1, {"confident": True}, False),
        (CapturePolicy(), 1, {"error": "too dark"}, True),
        (CapturePolicy(), 1, {"empty": True}, False),
        (CapturePolicy(unsure=False), 1, {"confident": False}, False),
        (CapturePolicy(one_in=3), 3, {"confident": True}, True),
        (CapturePolicy(one_in=3), 4, {"confident": True}, False),
    ],
)
def test_what_is_unsure_is_wanted_and_one_of_so_many(
    policy: CapturePolicy, number: int, said: dict[str, Any], wanted: bool
) -> None:
    assert is_wanted(policy, number, said) is wanted


def kept(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "digits").glob("*") if not p.name.startswith("."))


def is_kept(folder: Path, index: int) -> bool:
    return any(name.endswith(f"-{index}.json") for name in kept(folder))


def read(path: Path) -> Any:
    return cv2.imread(str(path))


def test_a_frame_is_kept_whole_with_its_result_and_the_next_comes_after_the_pause(
    tmp_path: Path,
) -> None:
    policies = {"digits": CapturePolicy(every_s=3600.0)}
    frames = CapturedFrames(tmp_path, lambda: policies)
    picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    frames.offer(frame(0, picture), line(0, confident=True))
    frames.offer(frame(1, picture, "a/b"), line(1, confident=False))
    frames.offer(frame(2), line(2, confident=False))
    frames.offer(frame(3), line(3, confident=False) | {"model": "faces"})
    frames.close(30)
    [said, png] = kept(tmp_path)
    assert png == "1795279439000-a%2Fb-1.png"
    assert json.loads((tmp_path / "digits" / said).read_text())["frame"] == 1
    assert np.array_equal(read(tmp_path / "digits" / png), picture)
    assert (tmp_path / "digits" / png).stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "faces").exists()


def test_the_oldest_make_room(tmp_path: Path) -> None:
    policies = {"digits": CapturePolicy(every_s=0.0, keep_mb=1)}
    frames = CapturedFrames(tmp_path, lambda: policies)
    sound = np.zeros(200_000, np.int16)  # 400 kB each
    for index in range(4):
        frames.offer(frame(index, sound), line(index, confident=False))
        eventually(partial(is_kept, tmp_path, index))
    frames.close(30)
    assert [name for name in kept(tmp_path) if name.endswith(".npy")] == [
        "1795279440000-belt-2.npy",
        "1795279441000-belt-3.npy",
    ]
    assert sum(p.stat().st_size for p in (tmp_path / "digits").iterdir()) <= 1 << 20


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "captured").write_text("in the way")
    frames = CapturedFrames(tmp_path / "captured", lambda: {"digits": CapturePolicy(every_s=0.0)})
    for index in range(3):
        frames.offer(frame(index), line(index, confident=False))
    frames.close(30)
    assert (tmp_path / "captured").read_text() == "in the way"


def test_a_frame_that_cannot_be_encoded_or_is_too_large_takes_no_other_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = CapturedFrames(tmp_path, lambda: {"digits": CapturePolicy(every_s=0.0, keep_mb=1)})
    faults = [np.zeros((0, 8, 3), np.uint8), np.zeros(600_000, np.int16)]
    for index, image in enumerate([*faults, None]):
        eventually(frames._waiting.empty)
        frames.offer(frame(index, image), line(index, confident=False))
    frames.close(30)
    assert [name for name in kept(tmp_path) if name.endswith(".json")] == [
        "1795279440000-belt-2.json"
    ]
    assert len(caplog.messages) == 1
    assert "frames cannot be kept" in caplog.text


@pytest.mark.parametrize(
    "name", ["..", ".", "a/../b", "日本" * 40], ids=["parent", "itself", "path", "long"]
)
def test_whatever_a_model_and_a_source_are_called_their_frames_are_kept_in_the_folder(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "captured"
    frames = CapturedFrames(folder, lambda: {name: CapturePolicy()})
    frames.offer(frame(1, source=name), line(1, confident=False) | {"model": name})
    frames.close(30)
    assert len(list(folder.glob("*/1795279439000-*-1.json"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["captured"]


def test_a_disk_that_hangs_does_not_keep_the_agent_from_ending(tmp_path: Path) -> None:
    answers = threading.Event()

    class Hangs(float):
        def __mul__(self, other: float) -> float:
            answers.wait(60)
            return float(self) * other

    frames = CapturedFrames(tmp_path, lambda: {"digits": CapturePolicy(every_s=0.0)})
    frames.offer(frame(1), line(1, confident=False) | {"t": Hangs(1_795_279_438.0)})
    eventually(frames._waiting.empty)
    frames.offer(frame(2), line(2, confident=False))
    ending = threading.Thread(target=frames.close, args=(0.1,), daemon=True)
    ending.start()
    ending.join(30)
    ended = not ending.is_alive()
    answers.set()
    assert ended


def test_an_agent_keeps_the_region_of_what_its_model_is_unsure_of(scene: Scene) -> None:
    scene.configuration = msgspec.structs.replace(
        scene.configuration, config_version=2, capture={MODEL: CapturePolicy(every_s=0.1)}
    )
    release = scene.release("1.0.0", pipeline=UNSURE + LEFT_HALF)
    scene.want(release)
    folder = scene.data / "captured" / MODEL
    with AgentProcess(scene.config) as agent:
        eventually(lambda: len(list(folder.glob("*.json"))) > 1, what="two frames")
        agent.stop()
    first = min(folder.glob("*.json"))
    said = json.loads(first.read_text())
    assert (said["confident"], said["source"]) == (False, "belt")
    assert said["release"] == release.digest
    assert read(first.with_suffix(".png")).shape == (24, 12, 3)
