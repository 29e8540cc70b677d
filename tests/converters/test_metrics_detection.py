"""Average precision is that of pycocotools, and heads are read in each of their forms."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from converters.dataset import Boxes, open_dataset
from converters.metrics import Detections, MeanAveragePrecision, find_metric
from converters.metrics.detection import suppressed, yolo_detections
from edgeml.errors import ModelError


class Given(MeanAveragePrecision, frozen=True):
    """Outputs are boxes, scores and classes."""

    def detections(self, outputs: Any) -> Detections:
        return Detections(*outputs)


def scene(rng: np.random.Generator, classes: int = 3) -> tuple[Detections, Boxes]:
    n = int(rng.integers(0, 5))
    corners = rng.uniform(0, 80, (n, 2))
    truth = np.concatenate([corners, corners + rng.uniform(5, 40, (n, 2))], axis=1)
    kinds = rng.integers(0, classes, n)
    copies = rng.integers(0, 3, n)
    found = truth.repeat(copies, axis=0)
    found[:, :] += rng.normal(0, 2.0, found.shape)
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    noise = rng.uniform(0, 60, (int(rng.integers(0, 4)), 2))
    boxes = np.concatenate([found, np.concatenate([noise, noise + 20], axis=1)])
    said = np.concatenate([kinds.repeat(copies), rng.integers(0, classes, len(noise))])
    return Detections(boxes, rng.random(len(boxes)), said), Boxes(truth, kinds)


def by_the_library(scenes: list[tuple[Detections, Boxes]], thresholds: list[float]) -> float:
    def annotation(number: int, image: int, box: np.ndarray, kind: int) -> dict[str, Any]:
        size = box[2:] - box[:2]
        return {"id": number, "image_id": image, "category_id": int(kind), "iscrowd": 0,
                "bbox": [*box[:2], *size], "area": float(size.prod())}  # fmt: skip

    truth, found = COCO(), []
    annotations: list[dict[str, Any]] = []
    for image, (detections, boxes) in enumerate(scenes):
        for box, kind in zip(boxes.boxes, boxes.classes, strict=True):
            annotations.append(annotation(len(annotations) + 1, image, box, kind))
        for box, score, kind in zip(
            detections.boxes, detections.scores, detections.classes, strict=True
        ):
            found.append(annotation(0, image, box, kind) | {"score": float(score)})
    truth.dataset = {
        "images": [{"id": i} for i in range(len(scenes))],
        "categories": [{"id": i} for i in range(3)],
        "annotations": annotations,
        "info": {},
    }
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(found), "bbox")
    judge.params.iouThrs = np.array(thresholds)
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 2]
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["map", "map50"])
def test_the_score_is_that_of_the_library(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(40)]
    metric = Given(name, find_metric(name).thresholds)
    made = [metric.outcome([d.boxes, d.scores, d.classes], b, []) for d, b in scenes]
    assert metric.score(made) == pytest.approx(by_the_library(scenes, list(metric.thresholds)))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_weight_of_two_is_the_same_as_the_image_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(12)]
    metric = Given()
    made = [metric.outcome([d.boxes, d.scores, d.classes], b, []) for d, b in scenes]
    times = rng.integers(1, 4, len(made))
    twice = [outcome for outcome, k in zip(made, times, strict=True) for _ in range(k)]
    # Copies of a detection share a score; only there the order within it may differ a little.
    assert metric.scores(made, times[None])[0] == pytest.approx(metric.score(twice), abs=0.02)
    assert metric.scores(made, 7.0 * times[None])[0] == pytest.approx(
        metric.scores(made, times[None])[0]
    )


def yolo(boxes: list[list[float]], scores: list[list[float]], anchors: int = 20) -> np.ndarray:
    output = np.zeros((1, 4 + len(scores[0]), anchors), np.float32)
    output[0, :, : len(boxes)] = np.concatenate([boxes, scores], axis=1).T
    return output


TWO = yolo([[20, 20, 10, 10], [21, 20, 10, 10], [60, 60, 20, 10]],
           [[0.9, 0], [0.8, 0], [0, 0.7]])  # fmt: skip


@pytest.mark.parametrize("output", [TWO, TWO.transpose(0, 2, 1).repeat(2, axis=1)[:, ::2][:, :20]])
def test_a_yolo_head_is_read_and_thinned(output: np.ndarray) -> None:
    if output.shape[2] == 6:
        output = np.concatenate([output, np.zeros((1, 20, 1), np.float32)], axis=2)
    found = yolo_detections([output])
    np.testing.assert_allclose(found.boxes, [[15, 15, 25, 25], [50, 55, 70, 65]], atol=1e-5)
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-6)


def test_detections_thinned_in_the_graph_are_taken_as_they_are() -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = [15, 15, 25, 25, 0.9, 3]
    found = yolo_detections([rows])
    assert found.boxes.tolist() == [[15, 15, 25, 25]]
    assert found.classes.tolist() == [3]


def test_boxes_of_different_classes_do_not_suppress_one_another() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], float)
    kept = suppressed(Detections(boxes, np.array([0.9, 0.8]), np.array([0, 1])))
    assert len(kept.scores) == 2


def test_perfect_detections_score_one_and_none_zero() -> None:
    metric = find_metric("map")
    label = Boxes(np.array([[15, 15, 25, 25], [50, 55, 70, 65.0]]), np.array([0, 1]))
    assert metric.score([metric.outcome([TWO], label, [])]) == pytest.approx(1.0)
    assert metric.score([metric.outcome([0 * TWO], label, [])]) == 0.0
    assert metric.score([metric.missed(label)]) == 0.0


@pytest.mark.parametrize(
    "outputs",
    [
        [np.zeros((1, 1600, 1)), np.zeros((1, 400, 4))],
        [np.zeros((1, 10))],
        [np.zeros((2, 84, 100))],
        [np.zeros((1, 100, 4))],
    ],
)
def test_another_head_is_refused_and_the_way_out_named(outputs: list[np.ndarray]) -> None:
    with pytest.raises(ModelError, match="module:attribute"):
        yolo_detections(outputs)


def test_nan_in_a_head_is_refused() -> None:
    with pytest.raises(ModelError, match="NaN"):
        find_metric("map").outcome([TWO * np.nan], Boxes(np.zeros((0, 4)), np.zeros(0, int)), [])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "no labels"),
        ({"y": np.array([0, 1])}, "class numbers; it takes boxes"),
        ({"y": np.zeros((2, 3, 4))}, "Box 0 of sample 0 .* empty"),
        ({"y": np.ones((2, 3, 4)), "count": np.array([0, 0])}, "no labelled box"),
    ],
)
def test_labels_that_are_no_boxes_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3)), **arrays)
    with pytest.raises(ModelError, match=words):
        find_metric("map").check(open_dataset(tmp_path / "d.npz"), [TWO])
