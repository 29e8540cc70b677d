"""Pairs of models as fleets really have them: a release, and the one that follows it.

Nothing is simulated: the digits are trained further by plain numpy from the example's own
weights, quantized by onnxruntime with calibration data, and the model trained from scratch is
the example's second one. `EDGEML_MODELS` (`benchmarks.shared_models`) adds larger ones.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from benchmarks.shared_models import models_folder, prepared
from examples.digits.data import Digits, splits
from examples.digits.views import NOMINAL, Range, views
from hardware.pipeline import parse
from hardware.runtimes import TensorSpec

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
RATE = 2e-3
BATCH = 32
STRIDES = (1, 2, 2, 1)
INPUT = "image"

Array = NDArray[np.float32]
Weights = dict[str, Array]


def pairs(quick: bool) -> Iterator[tuple[str, bytes, bytes]]:
    """Name, the bytes before and the bytes after."""
    digits = splits()
    images, labels = seen(digits.train.take(slice(0, 256 if quick else 2000)), NOMINAL)
    calibration = images[:64]
    before = onnx.load(str(EXAMPLE / "digits.onnx"))
    second = onnx.load(str(EXAMPLE / "digits-v2.onnx"))
    tuned = trained(before, images, labels)
    head = trained(before, images, labels, only="classify")
    old = int8(before, calibration)
    yield "recalibrated_int8", old, int8(before, images[64:160])
    for name, after in (("fine_tuned", tuned), ("one_layer", head), ("from_scratch", second)):
        yield f"{name}_float32", before.SerializeToString(), after.SerializeToString()
        yield f"{name}_int8", old, int8(after, calibration)
    folder = None if quick else models_folder()
    if folder is not None:
        yield "recalibrated_resnet20_int8", *_recalibrated(folder / "cifar_resnet20")


def _recalibrated(folder: Path) -> tuple[bytes, bytes]:
    """A model of 20 convolutions, quantized with one half of its calibration data or the other."""
    model = onnx.load(str(folder / "float.onnx"))
    spec = json.loads((folder / "spec.json").read_text())
    with np.load(folder / "calibration.npz") as data:
        images = prepared(spec, data["x"]).astype(np.float32)
    half = len(images) // 2
    return int8(model, images[:half]), int8(model, images[half:])


def seen(digits: Digits, conditions: Range) -> tuple[Array, NDArray[np.int64]]:
    """What the model is given of digits on the belt, [N, 1, 28, 28], and what they are."""
    runner = parse((EXAMPLE / "pipeline.toml").read_bytes()).runner(
        (TensorSpec(name=INPUT, shape=("N", 1, 28, 28), dtype="float32"),)
    )
    images, labels = [], []
    for image, label in zip(views(digits, conditions, (7,)), digits.labels, strict=True):
        made = runner.prepare(image)
        if made is not None:
            images.append(made[0][0].copy())
            labels.append(label)
    return np.stack(images), np.array(labels)


def int8(model: onnx.ModelProto, images: Array) -> bytes:
    """The model quantized to int8 (QDQ, per channel) with calibration on the images."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        quantize_static(
            str(source),
            str(target),
            _Images(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: Array) -> None:
        self._feeds = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)


def trained(
    model: onnx.ModelProto, images: Array, labels: NDArray[np.int64], only: str = ""
) -> onnx.ModelProto:
    """The digits' model, trained for one epoch more (momentum), whole or in one layer."""
    weights = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    speed = {name: np.zeros_like(value) for name, value in weights.items()}
    order = np.random.default_rng(3).permutation(len(images))
    for at in range(0, len(order) - BATCH + 1, BATCH):
        chosen = order[at : at + BATCH]
        for name, slope in _slopes(weights, images[chosen], labels[chosen]).items():
            if name.startswith(only):
                speed[name] = 0.9 * speed[name] - RATE * slope
                weights[name] = (weights[name] + speed[name]).astype(np.float32)
    after = onnx.ModelProto()
    after.CopyFrom(model)
    for tensor in after.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return after


def _slopes(weights: Weights, images: Array, labels: NDArray[np.int64]) -> Weights:
    """The gradient of the mean cross entropy by every weight."""
    layers = range(len(STRIDES))
    shown: list[Array] = [images]
    stacked: list[Array] = []
    for i in layers:
        stacked.append(_columns(shown[i], STRIDES[i]))  # [N, H, W, C*9]
        kernel = weights[f"conv{i}.weight"]
        made = stacked[i] @ kernel.reshape(len(kernel), -1).T + weights[f"conv{i}.bias"]
        shown.append(np.maximum(made, 0).transpose(0, 3, 1, 2))
    last = shown[-1]
    pooled = last.mean(axis=(2, 3))
    logits = pooled @ weights["classify.weight"].T + weights["classify.bias"]
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = raised / raised.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    slopes = {"classify.weight": error.T @ pooled, "classify.bias": error.sum(axis=0)}
    back = (error @ weights["classify.weight"])[:, :, None, None] / last[0, 0].size
    for i in reversed(layers):
        back = (back * (shown[i + 1] > 0)).transpose(0, 2, 3, 1)
        kernel = weights[f"conv{i}.weight"]
        flat = back.reshape(-1, len(kernel))
        slopes[f"conv{i}.weight"] = (flat.T @ stacked[i].reshape(len(flat), -1)).reshape(
            kernel.shape
        )
        slopes[f"conv{i}.bias"] = flat.sum(axis=0)
        back = _scatter(back @ kernel.reshape(len(kernel), -1), shown[i].shape, STRIDES[i])
    return slopes


def _columns(images: Array, stride: int) -> Array:
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    n, c, h, w = windows.shape[:4]
    return np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(n, h, w, c * 9)


def _scatter(columns: Array, shape: Sequence[int], stride: int) -> Array:
    """The transpose of `_columns`."""
    n, c, h, w = shape
    padded = np.zeros((n, c, h + 2, w + 2), np.float32)
    parts = columns.reshape(*columns.shape[:3], c, 3, 3).transpose(0, 3, 1, 2, 4, 5)
    rows, cols = parts.shape[2] * stride, parts.shape[3] * stride
    for y in range(3):
        for x in range(3):
            padded[:, :, y : y + rows : stride, x : x + cols : stride] += parts[..., y, x]
    return padded[:, :, 1:-1, 1:-1]
