"""The pipeline as a whole: from frame to tensor, from scores to a result."""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import ModelError
from hardware.pipeline import Region, parse
from hardware.pipeline.runner import cut
from hardware.runtimes import TensorSpec, open_session
from tests.hardware.models import linear
from tests.hardware.pipeline.samples import GOOD, INPUT


def test_preparation_equals_the_plain_arithmetic_to_the_last_bit() -> None:
    image = np.random.default_rng(1).integers(0, 256, (12, 20, 3), np.uint8)
    [tensor] = parse(GOOD).runner(INPUT).prepare(image) or []
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(gray, (4, 4), interpolation=cv2.INTER_AREA).astype(np.float32)
    expected = (small * np.float32(0.00392156862745098) - np.float32(0.5)) / np.float32(0.25)
    np.testing.assert_array_equal(tensor, expected[np.newaxis, np.newaxis], strict=True)


def test_what_is_prepared_runs_in_the_model(tmp_path: Path) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    runner = parse(GOOD).runner(session.inputs)
    frame = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    prepared = runner.prepare(runner.crop(frame))
    assert prepared is not None
    result = runner.read(session.run(prepared))
    assert result.label in {"a", "b", "c"}
    assert sum(score for _, score in result.top) <= 1.0 + 1e-6


def test_buffers_are_reused_between_calls_of_any_image_size() -> None:
    runner = parse(GOOD).runner(INPUT)
    addresses = set()
    for side, value in itertools.product((8, 30), (0, 255)):
        [tensor] = runner.prepare(np.full((side, side, 3), value, np.uint8)) or []
        addresses.add(tensor.ctypes.data)
    assert len(addresses) == 1


def test_nothing_located_is_none_and_no_error() -> None:
    located = GOOD.replace(b"[[pre]]", b'[[pre]]\nop = "locate"\n[[pre]]', 1)
    runner = parse(located).runner(INPUT)
    assert runner.prepare(np.zeros((40, 40, 3), np.uint8)) is None
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 255
    assert runner.prepare(image) is not None


def test_the_region_is_a_view_of_the_frame() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    image = parse(GOOD).runner(INPUT).crop(frame)
    assert image.shape == (50, 100, 3)
    assert np.shares_memory(image, frame)


def test_a_site_moves_the_region() -> None:
    frame = np.arange(100, dtype=np.uint8).reshape(10, 10)
    site = {"region": {"x": 0.5, "y": 0.0, "width": 0.5, "height": 0.2}}
    np.testing.assert_array_equal(
        parse(GOOD).runner(INPUT, site).crop(frame), frame[:2, 5:], strict=True
    )


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_a_region_always_holds_a_pixel_of_the_frame(
    x: float, y: float, w: float, h: float, rows: int, columns: int
) -> None:
    frame = np.zeros((rows, columns), np.uint8)
    image = cut(frame, Region(x=x, y=y, width=w, height=h))
    assert 1 <= image.shape[0] <= rows
    assert 1 <= image.shape[1] <= columns


def test_a_result_has_probabilities_and_the_threshold_decides() -> None:
    runner = parse(GOOD).runner(INPUT)
    result = runner.read([np.array([[0.0, 3.0, 1.0]], np.float32)])
    assert (result.label, result.index, result.confident) == ("b", 1, True)
    assert [label for label, _ in result.top] == ["b", "c"]
    assert result.confidence == pytest.approx(0.8438, abs=1e-3)
    assert not runner.read([np.array([[1.0, 1.1, 1.0]], np.float32)]).confident


def test_a_site_sets_the_threshold() -> None:
    strict = parse(GOOD).runner(INPUT, {"threshold": 0.99})
    assert not strict.read([np.array([[0.0, 3.0, 1.0]], np.float32)]).confident


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3))
def test_softmax_gives_probabilities_in_falling_order_for_any_logits(logits: list[float]) -> None:
    whole = GOOD.replace(b"k = 2", b"k = 3")
    result = parse(whole).runner(INPUT).read([np.array([logits], np.float32)])
    scores = [score for _, score in result.top]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert logits[result.index] == max(logits)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 8, 4), np.uint8), ((8, 8), np.float32), ((0, 8), np.uint8)]
)
def test_what_is_no_image_is_refused(shape: tuple[int, ...], dtype: Any) -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        parse(GOOD).runner(INPUT).prepare(np.zeros(shape, dtype))


def test_a_pipeline_that_does_not_fit_the_model_names_both() -> None:
    wants = (TensorSpec(name="image", shape=("N", 3, 4, 4), dtype="float32"),)
    with pytest.raises(ModelError, match=r"makes float32\[1, 1, 4, 4\], the model wants image"):
        parse(GOOD).runner(wants).prepare(np.zeros((8, 8), np.uint8))


def test_a_later_image_that_makes_another_tensor_is_refused_too() -> None:
    unsized = b'version = 1\nlabels = ["a"]\n[[pre]]\nop = "layout"\nto = "NHW"\n'
    wants = (TensorSpec(name="image", shape=("N", 4, 4), dtype="uint8"),)
    runner = parse(unsized).runner(wants)
    assert runner.prepare(np.zeros((4, 4), np.uint8)) is not None
    with pytest.raises(ModelError, match=r"makes uint8\[1, 4, 5\]"):
        runner.prepare(np.zeros((4, 5), np.uint8))


def test_a_model_with_two_inputs_is_refused() -> None:
    with pytest.raises(ModelError, match="the model wants 2"):
        parse(GOOD).runner(INPUT * 2)


def test_a_step_that_fails_is_named() -> None:
    wrong = GOOD.replace(b"mean = [0.5]", b"mean = [0.1, 0.2, 0.3]")
    with pytest.raises(ModelError, match="ScaledPlanes on uint8"):
        parse(wrong).runner(INPUT).prepare(np.zeros((8, 8), np.uint8))


def test_wrong_numbers_of_scores_nan_and_no_scores_are_refused() -> None:
    runner = parse(GOOD).runner(INPUT)
    with pytest.raises(ModelError, match="3 labels, the model answers 2"):
        runner.read([np.zeros((1, 2), np.float32)])
    with pytest.raises(ModelError, match="NaN"):
        runner.read([np.array([[np.nan, 0, 0]], np.float32)])
    for nothing in ([], [np.array(["a", "b", "c"])]):
        with pytest.raises(ModelError, match="no scores"):
            runner.read(nothing)
