"""NNCF's post-training quantization of an ONNX file, with or without accuracy control."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_CHECK_SAMPLES = 16


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Quantize `model` into `output`.

    The request: `model`, `output`, `calibration` (.npz with x, samples in the model's layout),
    `method` (`quantize` or `quantize_with_accuracy_control`), `subset_size`; for accuracy
    control also `evaluation` (.npz with x and y) and `max_drop`, of top-1. The reply:
    `seconds` the quantization took, `quantize_nodes`, and `top1` if there is an evaluation.
    """
    import nncf
    import numpy as np
    import onnx

    model = onnx.load(request["model"])
    name = next(i.name for i in model.graph.input if i.name not in _constants(model))
    feeds = [{name: sample[None]} for sample in np.load(request["calibration"])["x"]]
    options = {"subset_size": request.get("subset_size", 300)}
    calibration = nncf.Dataset(feeds)
    begun = time.perf_counter()
    if request["method"] == "quantize":
        quantized = nncf.quantize(model, calibration, **options)
    else:
        quantized = nncf.quantize_with_accuracy_control(
            model,
            calibration,
            nncf.Dataset(_labelled(request["evaluation"])),
            lambda candidate, samples: _top1(candidate, name, samples),
            max_drop=request["max_drop"],
            **options,
        )
    seconds = time.perf_counter() - begun
    onnx.save(quantized, request["output"])
    reply = {
        "seconds": seconds,
        "quantize_nodes": sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node),
    }
    if "evaluation" in request:
        reply["top1"] = _top1(quantized, name, _labelled(request["evaluation"]))[0]
    return reply


def check() -> dict[str, Any]:
    """Quantize a small convolution and run it."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["y"], name="relu"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / name) for name in ("model", "output")}
        data = str(Path(folder) / "data.npz")
        onnx.save(model, paths["model"])
        x = rng.normal(size=(_CHECK_SAMPLES, 3, 8, 8)).astype(np.float32)
        np.savez(data, x=x)
        reply = answer({**paths, "calibration": data, "method": "quantize"})
        before, after = (_run(onnx.load(paths[name]), "x", x[:1])[0] for name in paths)
    error = float(np.abs(before - after).max() / np.abs(before).max())
    return {"quantize_nodes": reply["quantize_nodes"], "relative_error": error}


def _constants(model: Any) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}


def _labelled(path: str) -> list[tuple[Any, int]]:
    import numpy as np

    with np.load(path) as data:
        return list(zip(data["x"], data["y"].tolist(), strict=True))


def _top1(model: Any, name: str, samples: Iterable[tuple[Any, int]]) -> tuple[float, list[float]]:
    session = _session(model)
    right = [
        float(session.run(None, {name: sample[None]})[0].argmax() == label)
        for sample, label in samples
    ]
    return sum(right) / len(right), right


def _run(model: Any, name: str, x: Any) -> Any:
    return _session(model).run(None, {name: x})


def _session(model: Any) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)
