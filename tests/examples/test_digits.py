"""The example: its data do not overlap, its belt is what its ground truth says."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml.errors import UserError
from examples.digits.belt import BeltPlan, Footage, write
from examples.digits.data import SIZES, splits
from examples.digits.measure import BAD_LIGHT, accuracy
from examples.digits.scene import Conditions
from examples.digits.views import NOMINAL
from hardware.pipeline import parse
from hardware.runtimes import open_session

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"


def test_no_digit_is_in_two_splits() -> None:
    parts = splits()
    hashes = {name: set(getattr(parts, name).content_hashes()) for name in SIZES}
    names = list(hashes)
    for i, first in enumerate(names):
        assert len(getattr(parts, first)) == SIZES[first]
        for second in names[i + 1 :]:
            assert not hashes[first] & hashes[second], (first, second)


def test_every_split_has_every_digit_about_as_often() -> None:
    for name, size in SIZES.items():
        counts = np.bincount(getattr(splits(), name).labels, minlength=10)
        assert counts.min() > 0.8 * size / 10


def test_the_same_plan_makes_the_same_frames_and_another_seed_others() -> None:
    first, again = Footage(BeltPlan(count=8, seed=3)), Footage(BeltPlan(count=8, seed=3))
    other = Footage(BeltPlan(count=8, seed=4))
    assert np.array_equal(first.frame(17), again.frame(17))
    assert not np.array_equal(first.frame(17), other.frame(17))
    assert first.truth() == again.truth()


def test_the_model_reads_what_the_ground_truth_says_from_the_decoded_video(tmp_path: Path) -> None:
    truth = json.loads(write(BeltPlan(count=12, seed=1), tmp_path / "belt.mp4").read_text())
    session = open_session("onnxruntime", EXAMPLE / "digits.onnx")
    runner = parse((EXAMPLE / "pipeline.toml").read_bytes()).runner(session.inputs)
    video = cv2.VideoCapture(str(tmp_path / "belt.mp4"))
    right = wrong = missed = 0
    for expected in truth["frames"]:
        good, frame = video.read()
        assert good
        tensors = runner.prepare(runner.crop(frame))
        if expected is None:
            continue
        if tensors is None:
            missed += 1
        elif runner.read(session.run(tensors)).label == str(expected):
            right += 1
        else:
            wrong += 1
    video.release()
    assert right > 50
    assert right / (right + wrong) > 0.9
    assert missed / (right + wrong + missed) < 0.1


@pytest.mark.parametrize(
    ("knob", "brighter"), [(Conditions(light=0.5), False), (Conditions(light=1.2), True)]
)
def test_the_light_knob_changes_the_light(knob: Conditions, brighter: bool) -> None:
    nominal = Footage(BeltPlan(count=8)).frame(0).mean()
    changed = Footage(BeltPlan(count=8, conditions=knob)).frame(0).mean()
    assert (changed > nominal) == brighter


def test_a_faster_belt_has_fewer_frames() -> None:
    assert len(Footage(BeltPlan(count=8, speed=10))) < len(Footage(BeltPlan(count=8, speed=5)))


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Only 404"):
        Footage(BeltPlan(count=405))
    with pytest.raises(UserError, match="cannot run"):
        BeltPlan(speed=0)
    with pytest.raises(UserError, match=r"\.mp4 and \.avi"):
        write(BeltPlan(count=8), tmp_path / "belt.gif")


def test_the_models_are_as_good_as_the_readme_says() -> None:
    digits = splits().evaluation.take(slice(0, 400))
    right, confident, located = accuracy("digits.onnx", "pipeline.toml", digits, NOMINAL)
    assert right > 0.93
    assert confident > 0.9
    assert located == len(digits)
    better, _, _ = accuracy("digits-v2.onnx", "pipeline.toml", digits, BAD_LIGHT)
    worse, _, _ = accuracy("digits.onnx", "pipeline.toml", digits, BAD_LIGHT)
    assert better > worse + 0.15


def test_the_wrong_pipeline_is_unsure_and_wrong() -> None:
    digits = splits().evaluation.take(slice(0, 200))
    right, confident, _ = accuracy("digits.onnx", "pipeline-wrong.toml", digits, NOMINAL)
    assert right < 0.3
    assert confident < 0.05


def test_the_scripts_run_from_the_command_line(tmp_path: Path) -> None:
    for script, arguments in (
        ("make_data.py", ["--out", str(tmp_path / "data")]),
        ("belt.py", ["--out", str(tmp_path / "belt.avi"), "--count", "8"]),
    ):
        done = subprocess.run(
            [sys.executable, str(EXAMPLE / script), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "data" / "evaluation.npz", allow_pickle=False) as data:
        assert data["x"].shape == (1500, 112, 112)
        assert set(data["y"]) == set(range(10))
