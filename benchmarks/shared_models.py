"""Trained models with labelled data, found by `EDGEML_MODELS` (else `../shared/models`).

A folder each: the model, `calibration.npz`, `dev.npz` and a `spec.json` that says how samples
become model inputs, what is measured, and what the float model scored. None of it belongs to
the repository; what uses them says so where they are missing.
"""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from converters.metrics import Detections, MeanAveragePrecision
from converters.metrics.detection import suppressed

_METRICS = {
    "top1": "top1",
    "ctc_exact": "exact",
    "auc": "auc:reconstruction",
    "vs_float": "cosine",
    "yunet_ap50": "benchmarks.shared_models:Faces",
}


class SharedModel(msgspec.Struct, frozen=True):
    """A model's folder, its float ONNX file, and the metric that judges it."""

    name: str
    folder: Path
    file: Path
    metric: str
    spec: dict[str, Any]

    def write_data(self, out: Path) -> tuple[Path, Path]:
        """Write calibration and evaluation data in the model's input layout; their paths."""
        split = "dev" if (self.folder / "dev.npz").is_file() else "heldout"
        return self._write("calibration", out), self._write(split, out)

    def _write(self, split: str, out: Path) -> Path:
        path = out / f"{self.name}-{split}.npz"
        with np.load(self.folder / f"{split}.npz") as arrays:
            x = prepared(self.spec, arrays["x"])
            windows = len(x) // len(arrays["x"])  # of a recording, each judged by itself
            labels = {key: arrays[key].repeat(windows, axis=0) for key in arrays if key != "x"}
        np.savez(path, x=x, **labels)
        return path


def models_folder() -> Path | None:
    """The folder of all models, or None where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "models"
    folder = Path(os.environ.get("EDGEML_MODELS") or default)
    return folder if folder.is_dir() else None


def shared_models(folder: Path) -> list[SharedModel]:
    """The models that a known metric can judge, by name."""
    found = []
    for path in sorted(folder.glob("*/spec.json")):
        spec = json.loads(path.read_text(encoding="utf-8"))
        names = ("float.onnx", "plain.onnx", spec.get("reference", ""))
        files = [path.parent / name for name in names if name.endswith(".onnx")]
        file = next((file for file in files if file.is_file()), None)
        metric = _METRICS.get(spec.get("metric", ""))
        if file is None or metric is None:
            continue
        if metric == "exact":
            metric = f"exact:{path.parent / spec['labels_file']}"
        found.append(SharedModel(path.parent.name, path.parent, file, metric, spec))
    return found


def prepared(spec: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Samples in the model's input layout, float32, as a folder's spec says."""
    x = x.astype(np.float32)
    for step in spec["preprocessing"]:
        if step["op"] == "affine":
            x = x * np.float32(step["mul"]) + np.float32(step["add"])
        elif step["op"] == "gray_to_3ch_last":
            x = x[..., None].repeat(3, axis=-1)
        elif step["op"] == "transpose":
            x = x.transpose(step["perm"])
        elif step["op"] == "upsample2":
            x = _doubled(_doubled(x, 1), 2)
        elif step["op"] == "reshape":
            x = x.reshape([len(x), *step["shape"]])
        elif step["op"] == "frames":
            starts = range(step["count"])
            windows = [x[:, i : i + step["width"]].reshape(len(x), -1) for i in starts]
            x = np.stack(windows, axis=1).reshape(len(x) * len(windows), -1)
        else:
            raise ValueError(f"unknown step {step['op']}")
    return np.ascontiguousarray(x, np.float32)


def _doubled(x: np.ndarray, axis: int) -> np.ndarray:
    n = x.shape[axis]
    before = np.take(x, np.clip(np.arange(n) - 1, 0, n - 1), axis)
    after = np.take(x, np.clip(np.arange(n) + 1, 0, n - 1), axis)
    doubled = np.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    shape = list(x.shape)
    shape[axis] *= 2
    return doubled.reshape(shape)


class Faces(MeanAveragePrecision, frozen=True):
    """AP at an overlap of 0.5 for YuNet, whose twelve outputs no general metric reads."""

    thresholds: tuple[float, ...] = (0.5,)

    def detections(self, outputs: Any) -> Detections:
        """Boxes x1 y1 x2 y2 in pixels with their scores, after suppression of overlaps."""
        boxes, scores = [], []
        for level, stride in enumerate((8, 16, 32)):
            likely, objects, offsets = (outputs[level + 3 * k][0] for k in range(3))
            rows, columns = np.divmod(np.arange(len(likely)), 320 // stride)
            centres = (np.stack([columns, rows], 1) + offsets[:, :2]) * stride
            sizes = np.exp(offsets[:, 2:]) * stride
            boxes.append(np.concatenate([centres - sizes / 2, centres + sizes / 2], 1))
            scores.append(np.sqrt(np.clip(likely, 0, 1) * np.clip(objects, 0, 1))[:, 0])
        likeliest = np.concatenate(scores)
        kept = likeliest > 0.05
        found = Detections(
            np.concatenate(boxes).astype(float)[kept],
            likeliest[kept],
            np.zeros(int(kept.sum()), int),
        )
        return suppressed(found, 0.45)
