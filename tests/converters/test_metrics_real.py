"""On trained models each metric gives the accuracy that was measured beside them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.shared_models import prepared
from converters.dataset import Dataset, open_dataset
from converters.gates import metric_gate, metric_score
from converters.metrics import Metric, find_metric
from hardware.runtimes import open_session


def judged(folder: Path, out: Path, metric: Metric, most: int | None = None) -> list[Any]:
    spec = json.loads((folder / "spec.json").read_text())
    with np.load(folder / "dev.npz") as arrays:
        labels = {k: arrays[k][:most] for k in ("y", "count") if k in arrays}
        np.savez(out / "dev.npz", x=prepared(spec, arrays["x"][:most]), **labels)
    data: Dataset = open_dataset(out / "dev.npz")
    session = open_session("onnxruntime", folder / "float.onnx")
    outcomes = []
    for index, sample in enumerate(data):
        outputs = session.run([sample[None]])
        if index == 0:
            metric.check(data, outputs)
        outcomes.append(metric.outcome(outputs, data.label(index), outputs))
    session.close()
    return outcomes


def measured(folder: Path) -> dict[str, float]:
    spec = json.loads((folder / "spec.json").read_text())
    return spec["measured"]["float.onnx"]["dev"]


def test_keyword_spotting(shared_models: Path, tmp_path: Path) -> None:
    folder = shared_models / "kws_dscnn"
    metric = find_metric("top1")
    outcomes = judged(folder, tmp_path, metric)
    score = metric_score(metric, outcomes, confidence=0.95)
    assert score.value == pytest.approx(measured(folder)["top1"], abs=1e-4)
    assert score.n == measured(folder)["n"]


def test_text_recognition(shared_models: Path, tmp_path: Path) -> None:
    folder = shared_models / "ppocr_rec"
    labels = folder / "labels.txt"
    characters = find_metric(f"char_accuracy:{labels}")
    outcomes = judged(folder, tmp_path, characters)
    assert characters.score(outcomes) == pytest.approx(measured(folder)["char_acc"], abs=1e-3)
    exact = [distance == 0 for distance, _ in outcomes]
    metric = find_metric(f"exact:{labels}")
    assert metric.score(exact) == pytest.approx(measured(folder)["exact"])
    gate = metric_gate(characters, outcomes, outcomes, max_drop=0.01, confidence=0.95)
    assert gate.result == "undecided", "150 lines cannot show a drop below one point"


def test_exact_match_decodes_real_lines(shared_models: Path, tmp_path: Path) -> None:
    folder = shared_models / "ppocr_rec"
    metric = find_metric(f"exact:{folder / 'labels.txt'}")
    assert sum(judged(folder, tmp_path, metric, most=12)) >= 11


def test_face_detection_by_a_metric_of_ones_own(shared_models: Path, tmp_path: Path) -> None:
    folder = shared_models / "yunet"
    metric = find_metric("benchmarks.shared_models:Faces")
    outcomes = judged(folder, tmp_path, metric)
    # Measured there as the area under the curve, here at COCO's 101 recalls.
    assert metric.score(outcomes) == pytest.approx(measured(folder)["ap50"], abs=0.005)
    score = metric_score(metric, outcomes, confidence=0.95)
    assert 0.9 < score.low < score.value < score.high <= 1
    blind = [metric.missed(open_dataset(tmp_path / "dev.npz").label(i)) for i in range(80)]
    gate = metric_gate(metric, outcomes, blind, max_drop=0.01, confidence=0.95)
    assert (gate.result, gate.value) == ("fail", 0.0)
