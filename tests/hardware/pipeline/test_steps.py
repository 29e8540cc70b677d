"""Each step, to the last bit, against the plainest numpy or OpenCV that says the same."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hardware.pipeline.definition import (
    Colour,
    Layout,
    Letterbox,
    Locate,
    PreStep,
    Resize,
    Scale,
)
from hardware.pipeline.geometry import place
from hardware.pipeline.steps import Step, build

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (31, 23, 3), np.uint8)
GRAY = RNG.integers(0, 256, (31, 23), np.uint8)
SHAPES = [COLOUR, GRAY, GRAY[..., np.newaxis], COLOUR[3:20, 2:19]]


def step(definition: PreStep) -> Step:
    [made] = build([definition])
    return made


def run(definition: PreStep, image: NDArray[Any]) -> NDArray[Any]:
    made = step(definition)(image)
    assert made is not None
    return made


def same(made: NDArray[Any], expected: NDArray[Any]) -> None:
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected, strict=True)


def test_colours_are_converted_as_opencv_does() -> None:
    same(run(Colour(to="gray"), COLOUR), cv2.cvtColor(COLOUR, cv2.COLOR_BGR2GRAY))
    same(run(Colour(to="rgb"), COLOUR), COLOUR[..., ::-1])
    same(run(Colour(to="bgr"), COLOUR), COLOUR)


def test_gray_becomes_any_colour_and_stays_gray() -> None:
    for gray in (GRAY, GRAY[..., np.newaxis]):
        same(run(Colour(to="gray"), gray), GRAY)
        for to in ("rgb", "bgr"):
            same(run(Colour(to=to), gray), np.stack([GRAY] * 3, axis=-1))


@pytest.mark.parametrize("image", SHAPES)
@pytest.mark.parametrize(("size", "how"), [((8, 8), cv2.INTER_AREA), ((64, 48), cv2.INTER_LINEAR)])
def test_resizing_shrinks_by_area_and_grows_linearly(
    image: NDArray[np.uint8], size: tuple[int, int], how: int
) -> None:
    expected = cv2.resize(image, size, interpolation=how).reshape(*size[::-1], *image.shape[2:])
    same(run(Resize(width=size[0], height=size[1]), image), expected)


@pytest.mark.parametrize("image", SHAPES)
@pytest.mark.parametrize(
    "definition",
    [
        Scale(factor=0.00392156862745098, mean=(0.1307,), std=(0.3081,)),
        Scale(factor=1 / 127.5, mean=(1.0,)),
        Scale(factor=-1 / 255, mean=(-1.0,)),
        Scale(),
    ],
)
def test_scaling_bytes_is_the_formula_in_float32_to_the_last_bit(
    image: NDArray[np.uint8], definition: Scale
) -> None:
    factor, mean, std = (
        np.float32(v) for v in (definition.factor, definition.mean[0], definition.std[0])
    )
    same(run(definition, image), (image.astype(np.float32) * factor - mean) / std)
    same(run(definition, image.astype(np.float32)), run(definition, image))


def test_scaling_by_channel_gives_each_channel_its_own() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    scale = Scale(factor=1 / 255, mean=mean, std=std)
    plain = COLOUR.astype(np.float32) * np.float32(1 / 255)
    same(run(scale, COLOUR), (plain - np.float32(mean)) / np.float32(std))
    mixed = Scale(factor=1 / 255, mean=mean, std=(0.5,))
    same(run(mixed, COLOUR), (plain - np.float32(mean)) / np.float32(0.5))


def test_three_means_do_not_spread_over_the_columns_of_a_gray_image() -> None:
    with pytest.raises(ValueError, match="3 means or stds for 1 channel"):
        run(Scale(mean=(0.1, 0.2, 0.3)), np.zeros((3, 3), np.uint8))


@pytest.mark.parametrize("image", [COLOUR, COLOUR.astype(np.float32)])
def test_layouts_order_the_axes_and_add_the_batch(image: NDArray[Any]) -> None:
    same(run(Layout(to="NCHW"), image), image.transpose(2, 0, 1)[np.newaxis])
    same(run(Layout(to="NHWC"), image), image[np.newaxis])


def test_layouts_of_gray_have_one_channel_or_no_axis_of_it() -> None:
    for gray in (GRAY, GRAY[..., np.newaxis]):
        same(run(Layout(to="NCHW"), gray), GRAY[np.newaxis, np.newaxis])
        same(run(Layout(to="NHWC"), gray), GRAY[np.newaxis, ..., np.newaxis])
        same(run(Layout(to="NHW"), gray), GRAY[np.newaxis])
    with pytest.raises(ValueError, match="NHW holds one channel"):
        run(Layout(to="NHW"), COLOUR)


def digit(at: tuple[int, int], thickness: int = 3) -> NDArray[np.uint8]:
    """A written 7 on a dark belt with some light on it."""
    image = np.random.default_rng(3).integers(10, 40, (60, 80), np.uint8)
    cv2.putText(image, "7", at, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 240, thickness)
    return image


def test_locate_finds_a_bright_digit_and_cuts_a_square_around_it() -> None:
    image = digit((30, 40))
    rows, columns = np.nonzero(image > 150)
    found = run(Locate(margin=0.25), image)
    longer = max(np.ptp(rows), np.ptp(columns)) + 1
    assert found.shape == (round(longer * 1.5),) * 2
    assert np.count_nonzero(found > 150) == rows.size
    inside = np.nonzero(found > 150)
    for ink in inside:
        middle = (ink.min() + ink.max()) / 2
        assert abs(middle - (found.shape[0] - 1) / 2) <= 1


def test_locate_works_on_colour_and_on_dark_objects() -> None:
    image = digit((30, 40))
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    same(run(Locate(), colour), cv2.cvtColor(run(Locate(), image), cv2.COLOR_GRAY2BGR))
    same(run(Locate(polarity="dark"), 255 - image), 255 - run(Locate(), image))


@pytest.mark.parametrize("at", [(-6, 40), (68, 40), (30, 12), (30, 70)])
def test_locate_refuses_a_digit_that_touches_the_border(at: tuple[int, int]) -> None:
    image = digit(at)
    ink = image > 150
    assert ink[0].any() or ink[-1].any() or ink[:, 0].any() or ink[:, -1].any()
    assert step(Locate())(image) is None


def test_locate_takes_the_largest_of_those_that_are_whole() -> None:
    image = np.full((60, 80), 20, np.uint8)
    image[10:50, 0:12] = 240
    image[10:30, 40:46] = 240
    image[10:14, 60:64] = 240
    assert np.count_nonzero(run(Locate(), image) == 240) == 20 * 6


def test_locate_refuses_what_is_too_small_and_an_empty_image() -> None:
    image = np.full((60, 80), 20, np.uint8)
    located = step(Locate(min_area=0.01))
    assert located(image) is None
    image[30:36, 30:37] = 240
    assert located(image) is None
    image[30:36, 30:38] = 240
    assert located(image) is not None


@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 18), st.integers(1, 18),
    st.floats(0, 2),
)  # fmt: skip
def test_a_located_square_equals_the_cut_from_a_padded_image(
    x: int, y: int, w: int, h: int, margin: float
) -> None:
    image = np.arange(40 * 40, dtype=np.int32).reshape(40, 40) % 5
    image = image.astype(np.uint8)
    image[y : y + h, x : x + w] = 250
    found = run(Locate(margin=margin, min_area=0.0), image)
    side = round(max(w, h) * (1 + 2 * margin))
    padded = np.pad(image, 100, mode="edge")
    left, top = 100 + x + w // 2 - side // 2, 100 + y + h // 2 - side // 2
    same(found, padded[top : top + side, left : left + side])


@pytest.mark.parametrize(
    "definition",
    [
        Colour(to="gray"),
        Colour(to="rgb"),
        Resize(width=9, height=9),
        Resize(width=60, height=60),
        Scale(factor=0.5),
        Layout(to="NCHW"),
        Layout(to="NHWC"),
    ],
)
def test_a_step_writes_into_the_same_memory_each_time(definition: PreStep) -> None:
    once = step(definition)
    first = once(COLOUR)
    second = once(255 - COLOUR)
    assert first is not None
    assert second is not None
    assert first.ctypes.data == second.ctypes.data


def test_locate_pads_into_the_same_memory_each_time() -> None:
    located = step(Locate(margin=2.0))
    addresses = set()
    for light in (200, 250):
        image = np.full((40, 80), 20, np.uint8)
        image[2:38, 30:40] = light
        found = located(image)
        assert found is not None
        addresses.add(found.ctypes.data)
    assert len(addresses) == 1


@pytest.mark.parametrize(
    "definition", [Colour(to="rgb"), Scale(), Layout(to="NCHW"), Resize(width=5, height=5)]
)
def test_no_step_writes_into_what_it_was_given(definition: PreStep) -> None:
    image = COLOUR.copy()
    run(definition, image)
    same(image, COLOUR)


@pytest.mark.parametrize("image", [COLOUR, GRAY])
@pytest.mark.parametrize(("width", "height"), [(16, 16), (64, 16), (12, 40), (23, 31)])
@pytest.mark.parametrize("align", ["centre", "corner"])
def test_a_letterbox_is_a_resize_between_bars(
    image: NDArray[Any], width: int, height: int, align: Any
) -> None:
    found = run(Letterbox(width=width, height=height, fill=99, align=align), image)
    scale = min(width / image.shape[1], height / image.shape[0])
    w, h = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    how = cv2.INTER_AREA if scale <= 1 else cv2.INTER_LINEAR
    expected = np.full((height, width, *image.shape[2:]), 99, np.uint8)
    x, y = ((width - w) // 2, (height - h) // 2) if align == "centre" else (0, 0)
    expected[y : y + h, x : x + w] = cv2.resize(image, (w, h), interpolation=how)
    same(found, expected)


def test_a_letterbox_paints_its_bars_anew_for_another_size() -> None:
    box = step(Letterbox(width=20, height=20))
    wide, tall = np.full((10, 40, 3), 255, np.uint8), np.full((40, 10, 3), 255, np.uint8)
    for image in (wide, tall, wide):
        found = box(image)
        assert found is not None
        same(found, run(Letterbox(width=20, height=20), image))


@given(
    st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.booleans(),
)
def test_a_letterbox_fits_and_maps_its_corners_back_to_the_picture(
    size: tuple[int, int], into: tuple[int, int], centred: bool
) -> None:
    found = place(size, into, centred=centred)
    assert 0 <= found.left <= found.left + found.width <= into[0]
    assert 0 <= found.top <= found.top + found.height <= into[1]
    assert found.width == into[0] or found.height == into[1]
    corners = np.array(
        [[found.left, found.top, found.left + found.width, found.top + found.height]], np.float32
    )
    np.testing.assert_allclose(
        found.mapping(*size).points(corners)[0], [0, 0, *size], atol=2e-3 * max(size)
    )


PLANES = [Scale(factor=0.5), Scale(mean=(1, 2, 3), std=(2, 3, 4)), Scale(mean=(5.0,), std=(7.0,))]


@pytest.mark.parametrize("scale", PLANES)
@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("image", [COLOUR, GRAY, COLOUR[:, :, :1]])
def test_steps_that_are_taken_together_give_the_same_bits(
    scale: Scale, swap: bool, image: NDArray[Any]
) -> None:
    if len(scale.mean) == 3 and image.ndim < 3:
        image = np.stack([image] * 3, axis=2)
    if len(scale.mean) == 3 and image.shape[2] == 1 and not swap:
        return
    before = [Colour(to="rgb")] if swap else []
    definitions = [*before, Resize(width=9, height=7), scale, Layout(to="NCHW")]
    together = build(definitions)
    assert len(together) == 2
    apart = image
    for definition in definitions:
        apart = run(definition, apart)
    found: Any = image
    for one in together:
        found = one(found)
    same(found, apart)


def test_to_exchange_colours_commutes_with_a_letterbox() -> None:
    definitions = [Colour(to="rgb"), Letterbox(width=9, height=7), Layout(to="NHWC")]
    apart: Any = COLOUR
    for definition in definitions:
        apart = run(definition, apart)
    found: Any = COLOUR
    for one in build(definitions):
        found = one(found)
    same(found, apart)
