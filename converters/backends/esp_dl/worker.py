"""ESP-PPQ: a float ONNX file to ESP-DL's, and the quantized graph, which answers in its place."""

import tempfile
import time
from pathlib import Path
from typing import Any

_built: list[Any] = []


def prepare() -> None:
    """Import what quantizing takes."""
    import esp_ppq.api  # noqa: F401


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Quantize `model`, or let what was quantized answer.

    To quantize: `model`, `samples` (.npz, an array [n, ...] an input), `chip`, `bits` of the
    activations, `algorithm` of their ranges, `output` and `description`, the files to write; the
    reply has `seconds` and `rows` [name, operator, computes in integers], or `refused`. To run:
    `inputs` (.npz, arrays [n, ...]) and `outputs`, the .npz to write.
    """
    return _run(request) if "inputs" in request else _quantize(request)


def check() -> dict[str, Any]:
    """Quantize a small convolution and run it."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 3])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        named = {n: str(Path(folder) / n) for n in ("model", "samples", "output", "description")}
        onnx.save(model, named["model"])
        np.savez(named["samples"], rng.normal(size=(8, 1, 3, 8, 8)).astype(np.float32))
        named["samples"] += ".npz"
        reply = answer({**named, "chip": "esp32s3", "bits": "w8a8", "algorithm": "minmax"})
    if "refused" in reply:
        raise SystemExit(reply["refused"])
    return {"rows": reply["rows"]}


def _quantize(request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import torch
    from esp_ppq.api import espdl_quantize_onnx
    from esp_ppq.api.setting import QuantizationSettingFactory
    from esp_ppq.core import TargetPlatform
    from esp_ppq.executor import TorchExecutor

    _built.clear()
    torch.set_num_threads(1)  # sums in one order: the same file each time
    begun = time.perf_counter()
    with np.load(request["samples"]) as stored:
        samples = [
            [torch.from_numpy(tensor) for tensor in sample]
            for sample in zip(*(stored[name] for name in stored.files), strict=True)
        ]
    setting = QuantizationSettingFactory.espdl_setting(8 if request["bits"] == "w8a8" else 16)
    setting.quantize_activation_setting.calib_algorithm = request["algorithm"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.espdl"
        try:
            graph = espdl_quantize_onnx(
                onnx_import_file=request["model"],
                espdl_export_file=str(made),
                calib_dataloader=samples,
                calib_steps=len(samples),
                input_shape=[list(tensor.shape) for tensor in samples[0]],
                inputs=samples[0],
                target=request["chip"],
                quant_type=request["bits"],
                setting=setting,
                error_report=False,
                collate_fn=lambda sample: sample,
            )
            Path(request["output"]).write_bytes(made.read_bytes())
            Path(request["description"]).write_bytes(made.with_suffix(".info").read_bytes())
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- it raises anything
            said = next((line for line in str(error).splitlines() if line.strip()), "")
            return {"refused": f"{type(error).__name__}: {said[:300]}"}
    _built.append(TorchExecutor(graph=graph, device="cpu"))
    rows = [
        (name, operator.type, operator.platform != TargetPlatform.FP32)
        for name, operator in graph.operations.items()
    ]
    return {"seconds": time.perf_counter() - begun, "rows": rows}


def _run(request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import torch

    with np.load(request["inputs"]) as stored:
        samples = list(zip(*(stored[name] for name in stored.files), strict=True))
    with torch.no_grad():
        answers = [
            [output.numpy() for output in _built[0].forward([torch.from_numpy(x) for x in sample])]
            for sample in samples
        ]
    np.savez(request["outputs"], *(np.stack(each) for each in zip(*answers, strict=True)))
    return {"samples": len(answers)}
