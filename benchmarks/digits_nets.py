"""Small nets trained on scikit-learn's digits, as ONNX files with their data."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HELD_BACK = 1400  # the first sample that nothing is trained on
_CALIBRATION = 1000
_FILTERS = 4  # and their negatives
Data = tuple[Path, Path, Path]  # model, calibration, evaluation


def digits_mlp(folder: Path) -> Data:
    """An MLP 64-32-16-10 of pixels from 0 to 16."""
    from sklearn.neural_network import MLPClassifier

    x, labels = _digits()
    trained = MLPClassifier((32, 16), max_iter=120, tol=0.0, n_iter_no_change=120, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could go on
        trained.fit(x[:HELD_BACK] / 16, labels[:HELD_BACK])
    nodes = [helper.make_node("Mul", ["x", "scale"], ["h0"])]
    constants: dict[str, Any] = {"scale": np.float32(1 / 16)}
    last = len(trained.coefs_) - 1
    for i, (weights, bias) in enumerate(zip(trained.coefs_, trained.intercepts_, strict=True)):
        constants |= {f"w{i}": weights.astype(np.float32), f"b{i}": bias.astype(np.float32)}
        made = "y" if i == last else f"g{i}"
        nodes.append(helper.make_node("Gemm", [f"h{i}", f"w{i}", f"b{i}"], [made], f"dense{i}"))
        if i != last:
            nodes.append(helper.make_node("Relu", [made], [f"h{i + 1}"], f"relu{i}"))
    return _written(folder, nodes, constants, x, labels)


def digits_cnn(folder: Path) -> Data:
    """Eight filters of 3 x 3, a MaxPool and a layer of ten, of pictures of 8 x 8.

    The filters are the principal components of patches and their negatives; the last layer is
    trained on what they give.
    """
    from sklearn.linear_model import LogisticRegression

    x, labels = _digits()
    pictures = x.reshape(-1, 8, 8) / 16
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    flat = patches[:HELD_BACK].reshape(-1, 9)
    _, axes = np.linalg.eigh(np.cov(flat.T))
    filters = np.concatenate([axes[:, -_FILTERS:].T, -axes[:, -_FILTERS:].T])
    held = np.maximum(np.einsum("nyxij,fij->nfyx", patches, filters.reshape(-1, 3, 3)), 0)
    pooled = held.reshape(len(held), len(filters), 4, 2, 4, 2).max(axis=(3, 5))
    features = pooled.reshape(len(pooled), -1)
    trained = LogisticRegression(max_iter=2000).fit(features[:HELD_BACK], labels[:HELD_BACK])
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["h0"]),
        helper.make_node("Conv", ["h0", "filters"], ["h1"], "filter", pads=[1] * 4),
        helper.make_node("Relu", ["h1"], ["h2"], "relu"),
        helper.make_node("MaxPool", ["h2"], ["h3"], "largest", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["h3"], ["h4"]),
        helper.make_node("Gemm", ["h4", "w", "b"], ["y"], "classify", transB=1),
    ]
    constants = {
        "scale": np.float32(1 / 16),
        "filters": filters.reshape(-1, 1, 3, 3).astype(np.float32),
        "w": trained.coef_.astype(np.float32),
        "b": trained.intercept_.astype(np.float32),
    }
    return _written(folder, nodes, constants, x.reshape(-1, 1, 8, 8), labels)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    return x.astype(np.float32), labels


def _written(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    x: np.ndarray,
    labels: np.ndarray,
) -> Data:
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    np.savez(folder / "calibration.npz", x=x[:_CALIBRATION])
    np.savez(folder / "evaluation.npz", x=x[HELD_BACK:], y=labels[HELD_BACK:])
    return folder / "model.onnx", folder / "calibration.npz", folder / "evaluation.npz"
