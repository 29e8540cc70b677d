"""The pipeline: parsed strictly, executed the same everywhere."""

import contextlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import ModelError
from hardware.pipeline import Pipeline, Region, parse
from hardware.pipeline.runner import cut
from hardware.runtimes import TensorSpec

GOOD = b"""
version = 1
task = "classification"
labels = ["a", "b", "c"]
[region]
x = 0.25
y = 0.5
width = 0.5
height = 0.5
[[pre]]
op = "colour"
to = "gray"
[[pre]]
op = "resize"
width = 4
height = 4
[[pre]]
op = "scale"
factor = 0.00392156862745098
mean = [0.5]
std = [0.25]
[[pre]]
op = "layout"
to = "NCHW"
[[post]]
op = "softmax"
[[post]]
op = "top_k"
k = 2
[[post]]
op = "threshold"
value = 0.6
[site]
allow = ["region", "threshold"]
"""
INPUT = (TensorSpec(name="image", shape=("N", 1, 4, 4), dtype="float32"),)
LOCATE = b"""
version = 1
labels = ["x"]
[[pre]]
op = "locate"
margin = 0.25
min_area = 0.02
"""


def locate(image: np.ndarray) -> np.ndarray | None:
    spec = TensorSpec(name="i", shape=("H", "W"), dtype="uint8")
    made = parse(LOCATE).runner((spec,)).prepare(image)
    return None if made is None else made[0]


def test_a_pipeline_is_read_back_as_written() -> None:
    pipeline = parse(GOOD)
    assert pipeline.labels == ("a", "b", "c")
    assert pipeline.region == Region(x=0.25, y=0.5, width=0.5, height=0.5)
    assert len(pipeline.pre) == 4
    assert pipeline.site.allow == ("region", "threshold")


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        (b"width = 4", b"widht = 4", 15, "widht"),
        (b'op = "resize"', b'op = "rezise"', 14, "rezise"),
        (b"value = 0.6", b"value = 1.6", 32, "value"),
        (b"k = 2", b'k = "two"', 29, "k"),
        (b"x = 0.25", b"x = -1.0", 6, "x"),
        (b'allow = ["region"', b'allow = ["model"', 34, "allow"),
        (b"version = 1", b"version = 2", 2, "version"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: bytes, new: bytes, line: int, word: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(GOOD.replace(old, new, 1))
    assert f"Line {line}:" in str(caught.value)
    assert word in str(caught.value)


def test_what_is_no_toml_is_said_so() -> None:
    with pytest.raises(ModelError, match="not valid TOML"):
        parse(b"[[pre\n")


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_a_model_error(data: bytes) -> None:
    with contextlib.suppress(ModelError):
        parse(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_no_damage_of_a_good_one_raises_anything_but_a_model_error(at: int, byte: int) -> None:
    damaged = bytearray(GOOD)
    damaged[at] = byte
    with contextlib.suppress(ModelError):
        assert isinstance(parse(bytes(damaged)), Pipeline)


def test_preparation_equals_the_plain_arithmetic() -> None:
    image = np.random.default_rng(1).integers(0, 256, (12, 20, 3), np.uint8)
    [tensor] = parse(GOOD).runner(INPUT).prepare(image) or []
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(gray, (4, 4), interpolation=cv2.INTER_AREA)
    expected = (small.astype(np.float64) / 255 - 0.5) / 0.25
    assert tensor.dtype == np.float32
    assert tensor.shape == (1, 1, 4, 4)
    np.testing.assert_allclose(tensor[0, 0], expected, atol=1e-5)


def test_buffers_are_reused_between_calls() -> None:
    runner = parse(GOOD).runner(INPUT)
    image = np.zeros((8, 8, 3), np.uint8)
    [first] = runner.prepare(image) or []
    address = first.ctypes.data
    [second] = runner.prepare(image + 255) or []
    assert second.ctypes.data == address


def test_the_region_is_a_view_of_the_frame() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    image = parse(GOOD).runner(INPUT).crop(frame)
    assert image.shape == (50, 100, 3)
    assert np.shares_memory(image, frame)


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


def test_a_site_sets_only_what_the_release_allows() -> None:
    pipeline = parse(GOOD)
    strict = pipeline.runner(INPUT, {"threshold": 0.99})
    assert not strict.read([np.array([[0.0, 3.0, 1.0]], np.float32)]).confident
    with pytest.raises(ModelError, match="may not set labels"):
        pipeline.runner(INPUT, {"labels": []})
    with pytest.raises(ModelError, match="not valid"):
        pipeline.runner(INPUT, {"threshold": 7})


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


def test_wrong_numbers_of_scores_and_nan_are_refused() -> None:
    runner = parse(GOOD).runner(INPUT)
    with pytest.raises(ModelError, match="3 labels, the model answers 2"):
        runner.read([np.zeros((1, 2), np.float32)])
    with pytest.raises(ModelError, match="NaN"):
        runner.read([np.array([[np.nan, 0, 0]], np.float32)])


def test_locate_finds_a_bright_object_and_cuts_a_square_around_it() -> None:
    image = np.full((60, 80), 20, np.uint8)
    image[20:40, 30:36] = 240
    found = locate(image)
    assert found is not None
    assert found.shape == (30, 30)
    assert (found > 200).sum() == 20 * 6


def test_locate_refuses_an_object_that_touches_the_border() -> None:
    image = np.full((60, 80), 20, np.uint8)
    image[20:40, 0:10] = 240
    assert locate(image) is None


def test_locate_refuses_what_is_too_small_and_an_empty_image() -> None:
    image = np.full((60, 80), 20, np.uint8)
    assert locate(image) is None
    image[30:32, 30:32] = 240
    assert locate(image) is None


def test_locate_pads_a_square_that_leaves_the_image() -> None:
    image = np.full((40, 80), 20, np.uint8)
    image[2:38, 30:40] = 240
    found = locate(image)
    assert found is not None
    assert found.shape == (54, 54)
