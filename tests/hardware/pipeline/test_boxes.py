"""Boxes: overlaps suppressed as a plain loop would, heads decoded as they are documented."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.pipeline import Detections, PipelineRunner, parse
from hardware.pipeline.postprocessors.boxes import suppress
from hardware.runtimes import TensorSpec

SIZE = 64
HEAD = """
version = 1
task = "detection"
labels = ["cat", "dog", "hen"]
[[pre]]
op = "letterbox"
width = 64
height = 64
[[pre]]
op = "scale"
factor = 0.00392156862745098
[[pre]]
op = "layout"
to = "NCHW"
"""
INPUT = (TensorSpec(name="image", shape=(1, 3, SIZE, SIZE), dtype="float32"),)


def runner(post: str, site: dict[str, Any] | None = None) -> PipelineRunner:
    return parse((HEAD + post).encode()).runner(INPUT, site)


def read(post: str, *outputs: Any, shape: tuple[int, ...] = (64, 64, 3)) -> Detections:
    made = runner(post)
    made.prepare(np.zeros(shape, np.uint8))
    found = made.read([np.asarray(output, np.float32) for output in outputs])
    assert isinstance(found, Detections)
    return found


# What a plain loop says.


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either if either > 0 else 0.0


def plainly(
    boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any], iou: float
) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(
            classes[index] != classes[k] or overlap(boxes[index], boxes[k]) <= iou for k in kept
        ):
            kept.append(index)
    return kept


@st.composite
def candidates(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    count = draw(st.integers(0, 25))
    # Whole pixels: nothing depends on how an overlap rounds.
    corners = draw(st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 15)] * 2),
                            min_size=count, max_size=count))  # fmt: skip
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in corners], np.float32).reshape(-1, 4)
    order = draw(st.permutations(range(count)))
    scores = (0.1 + 0.8 * np.array(order) / max(count, 1)).astype(np.float32)
    classes = np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), np.int64)
    return boxes, scores, classes


@given(candidates(), st.sampled_from([0.0, 0.301, 0.4999, 0.701, 1.0]))
def test_suppression_is_that_of_a_plain_loop(
    found: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], iou: float
) -> None:
    assert suppress(*found, iou).tolist() == plainly(*found, iou)


@given(candidates(), st.floats(0.05, 0.95))
def test_no_two_boxes_of_a_class_that_stay_overlap_by_more(
    found: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], iou: float
) -> None:
    boxes, scores, classes = found
    kept = suppress(boxes, scores, classes, iou)
    assert (np.diff(scores[kept]) <= 0).all()
    for at, one in enumerate(kept):
        for other in kept[at + 1 :]:
            if classes[one] == classes[other]:
                assert overlap(boxes[one], boxes[other]) <= iou + 1e-6


def test_suppression_of_ten_thousand_looks_at_the_best_thousand() -> None:
    generator = np.random.default_rng(1)
    corners = generator.uniform(0, 600, (10_000, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 20], axis=1)
    scores = generator.uniform(0.3, 1, 10_000).astype(np.float32)
    kept = suppress(boxes, scores, np.zeros(10_000, np.int64), 0.5)
    assert kept[0] == scores.argmax()
    assert 100 < len(kept) <= 1000


# Heads.

V8 = '[[post]]\nop = "yolo"\nhead = "v8"\n'
V5 = '[[post]]\nop = "yolo"\nhead = "v5"\n'
END = '[[post]]\nop = "yolo"\nhead = "end_to_end"\n'
# Two of one cat, one dog in the same place, and one below the threshold.
CENTRES = np.array([[32, 20, 16, 8], [33, 20, 16, 8], [32, 20, 16, 8], [10, 10, 4, 4]], np.float32)
LIKELY = np.array([[0.9, 0.1, 0], [0.8, 0.1, 0], [0.1, 0.7, 0], [0.2, 0.1, 0]], np.float32)
CORNERS = [[24, 16, 40, 24], [24, 16, 40, 24]]


def check(found: Detections) -> None:
    assert found.names == ("cat", "dog")
    np.testing.assert_allclose(found.boxes, CORNERS, atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-6)
    assert found.label == "cat"
    assert found.confidence == pytest.approx(0.9)
    assert found.confident


def test_a_head_of_yolo_v8() -> None:
    check(read(V8, np.concatenate([CENTRES, LIKELY], axis=1).T[np.newaxis]))


def test_a_head_of_yolo_v5_multiplies_by_the_objectness() -> None:
    objects = np.full((4, 1), 0.95, np.float32)
    check(read(V5, np.concatenate([CENTRES, objects, LIKELY / 0.95], axis=1)[np.newaxis]))
    faint = np.concatenate([CENTRES, objects * 0.2, LIKELY], axis=1)[np.newaxis]
    assert read(V5, faint).names == ()


def test_a_head_without_overlaps() -> None:
    rows = [[24, 16, 40, 24, 0.9, 0], [24, 16, 40, 24, 0.7, 1], [1, 1, 2, 2, 0.1, 2]]
    check(read(END, [rows]))


FRACTIONS = np.array([[24, 16, 40, 24], [25, 16, 41, 24], [24, 16, 40, 24], [8, 8, 12, 12]]) / 64


def test_a_decoded_ssd_with_a_score_a_class_and_a_background() -> None:
    post = '[[post]]\nop = "ssd"\nbackground = true\n[[post]]\nop = "threshold"\nvalue = 0.4\n'
    scores = np.concatenate([np.zeros((4, 1)), LIKELY], axis=1)
    scores = np.concatenate([scores, np.zeros((1, 4))])[np.newaxis]
    boxes = np.concatenate([FRACTIONS, [[0, 0, 1, 1]]])[np.newaxis]
    check(read(post, boxes, scores))
    check(read(post, boxes, scores.transpose(0, 2, 1)))


def test_a_decoded_ssd_with_numbers_of_classes_and_y_first() -> None:
    post = '[[post]]\nop = "ssd"\nclasses = 1\nscores = 2\norder = "yxyx"\n'
    boxes = FRACTIONS[np.newaxis][..., [1, 0, 3, 2]]
    check(read(post, boxes, [[0, 0, 1, 0]], [[0.9, 0.8, 0.7, 0.2]], [4]))


def test_an_ssd_that_answers_offsets_from_its_anchors() -> None:
    anchors = (
        '[[post]]\nop = "ssd"\nbackground = true\n'
        "[post.anchors]\nmaps = [4, 1]\nsizes = [0.25, 0.5, 0.9]\nratios = [1.0, 2.0]\n"
        '[[post]]\nop = "threshold"\nvalue = 0.4\n'
    )
    wanted = np.array([24, 16, 40, 24]) / 64
    # One by one, as the paper writes it.
    priors = []
    for cells, size, after in ((4, 0.25, 0.5), (1, 0.5, 0.9)):
        for row in range(cells):
            for column in range(cells):
                centre = ((column + 0.5) / cells, (row + 0.5) / cells)
                sides = [(size * ratio**0.5, size / ratio**0.5) for ratio in (1.0, 2.0)]
                sides.append(((size * after) ** 0.5, (size * after) ** 0.5))
                priors += [(*centre, *side) for side in sides]
    offsets = np.zeros((1, len(priors), 4))
    scores = np.zeros((1, len(priors), 4))
    centre = ((wanted[0] + wanted[2]) / 2, (wanted[1] + wanted[3]) / 2)
    size = (wanted[2] - wanted[0], wanted[3] - wanted[1])
    for index, label in ((17, 1), (50, 2)):
        x, y, w, h = priors[index]
        offsets[0, index, :2] = (centre[0] - x) / w / 0.1, (centre[1] - y) / h / 0.1
        offsets[0, index, 2:] = np.log(size[0] / w) / 0.2, np.log(size[1] / h) / 0.2
        scores[0, index, label] = 0.9 if label == 1 else 0.7
    check(read(anchors, offsets, scores))


@given(st.integers(20, 300), st.integers(20, 300), st.sampled_from(["centre", "corner"]))
def test_a_box_comes_back_to_where_it_lies_in_the_frame(
    width: int, height: int, align: str
) -> None:
    text = HEAD.replace('op = "letterbox"', f'op = "letterbox"\nalign = "{align}"') + V8
    text += "[region]\nx = 0.25\ny = 0.5\nwidth = 0.5\nheight = 0.25\n[site]\nallow = []\n"
    made = parse(text.encode()).runner(INPUT)
    frame = np.zeros((height, width, 3), np.uint8)
    region = made.crop(frame)
    made.prepare(region)
    tall, wide = region.shape[:2]
    left, top = min(round(width * 0.25), width - 1), min(round(height * 0.5), height - 1)
    # The middle half of the region, in pixels of the letterbox.
    scale = min(SIZE / wide, SIZE / tall)
    inside = max(1, round(wide * scale)), max(1, round(tall * scale))
    x0, y0 = ((SIZE - inside[0]) // 2, (SIZE - inside[1]) // 2) if align == "centre" else (0, 0)
    centre = x0 + inside[0] / 2, y0 + inside[1] / 2
    head = np.array([[*centre, inside[0] / 2, inside[1] / 2, 0.9, 0, 0]], np.float32).T[np.newaxis]
    found = made.read([head])
    assert isinstance(found, Detections)
    expected = [left + wide / 4, top + tall / 4, left + wide * 3 / 4, top + tall * 3 / 4]
    np.testing.assert_allclose(found.boxes[0], expected, atol=1e-3)


def test_a_box_is_clipped_to_what_the_model_saw_of_the_frame() -> None:
    head = np.array([[32, 32, 640, 640, 0.9, 0, 0]], np.float32).T[np.newaxis]
    found = read(V8, head, shape=(100, 200, 3))
    np.testing.assert_allclose(found.boxes, [[0, 0, 200, 100]])


def test_an_image_without_a_crop_has_no_offset_of_the_frame_before() -> None:
    text = HEAD + V8 + "[region]\nx = 0.5\ny = 0.5\nwidth = 0.5\nheight = 0.5\n"
    made = parse(text.encode()).runner(INPUT)
    head = np.array([[32, 32, 8, 8, 0.9, 0, 0]], np.float32).T[np.newaxis]
    places = []
    for image in (made.crop(np.zeros((128, 128, 3), np.uint8)), np.zeros((64, 64, 3), np.uint8)):
        made.prepare(image)
        found = made.read([head])
        assert isinstance(found, Detections)
        places.append(found.boxes[0].tolist())
    assert places == [[92, 92, 100, 100], [28, 28, 36, 36]]


def test_a_site_sets_the_threshold_of_boxes() -> None:
    strict = runner(V8 + '[site]\nallow = ["threshold"]\n', {"threshold": 0.85})
    strict.prepare(np.zeros((64, 64, 3), np.uint8))
    found = strict.read([np.concatenate([CENTRES, LIKELY], axis=1).T[np.newaxis]])
    assert found.line() == {
        "label": "cat",
        "confidence": 0.9,
        "confident": True,
        "objects": [{"label": "cat", "score": 0.9, "box": [24.0, 16.0, 40.0, 24.0]}],
    }


@pytest.mark.parametrize(
    ("post", "outputs", "message"),
    [
        (V8, [np.zeros((1, 8, 10))], "has 7 values a box, this has 8"),
        (V5, [np.zeros((1, 10, 7))], "has 8 values a box, this has 7"),
        (V8, [np.zeros((2, 7, 10))], "three axes"),
        (V8, [], "the model has 0 outputs"),
        (V8, [np.full((1, 7, 10), np.nan)], "NaN"),
        (END, [[[[0, 0, 1, 1, 0.9, 3]]]], "classes up to 3"),
        (END, [[[[0, 0, np.inf, 1, 0.9, 1]]]], "NaN or infinity"),
        ('[[post]]\nop = "ssd"\n', [np.zeros((1, 5, 4))], "the model has 1 outputs"),
        ('[[post]]\nop = "ssd"\n', [np.zeros((1, 5, 4)), np.zeros((1, 5, 4))], "5 boxes of 3"),
        ('[[post]]\nop = "ssd"\n', [np.zeros((1, 5, 3)), np.zeros((1, 5, 3))], "four values"),
        (
            '[[post]]\nop = "ssd"\n[post.anchors]\nmaps = [1]\nsizes = [0.2, 0.4]\n',
            [np.zeros((1, 5, 4)), np.zeros((1, 5, 3))],
            "4 anchors, the model 5 boxes",
        ),
        ('[[post]]\nop = "yunet"\n', [np.zeros((1, 5, 4))], "needs its one label"),
    ],
)
def test_outputs_of_another_model_are_refused_by_name(
    post: str, outputs: list[Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        read(post, *outputs)


@given(st.data())
def test_no_numbers_raise_anything_but_a_model_error(data: st.DataObject) -> None:
    post, shape = data.draw(
        st.sampled_from([(V8, (1, 7, 12)), (V5, (1, 12, 8)), (END, (1, 12, 6))])
    )
    values = st.floats(width=32) | st.sampled_from([0.9, 0.5, 1.0, 0.0])
    head = np.array(data.draw(st.lists(values, min_size=84, max_size=96)), np.float32)
    try:
        found = read(post, np.resize(head, shape))
    except ModelError:
        return
    assert (found.boxes >= 0).all()
    assert (found.boxes <= SIZE).all()
