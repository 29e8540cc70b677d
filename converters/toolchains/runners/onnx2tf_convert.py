"""onnx2tf: an ONNX file to a float32 .tflite file."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

# onnx2tf looks for these images, which steer its search for axis orders, in the current folder
# and would fetch them from the Internet.
_IMAGES = "calibration_image_sample_data_20x128x128x3_float32.npy"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Convert `model` into `output`, a float32 .tflite file of batch 1.

    `keep_layout` (optional) keeps the inputs' axes as they are in the ONNX file; by default
    inputs that look like NCHW become NHWC. The reply: `inputs` and `outputs` of the .tflite
    file, by name, with shape and type.
    """
    import numpy as np
    import onnx
    import onnx2tf

    images = np.random.default_rng(0).random((20, 128, 128, 3), dtype=np.float32)
    np.save(_IMAGES, images)
    graph = onnx.load(request["model"], load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    with tempfile.TemporaryDirectory() as folder:
        onnx2tf.convert(
            input_onnx_file_path=request["model"],
            output_folder_path=folder,
            batch_size=1,
            copy_onnx_input_output_names_to_tflite=True,
            keep_shape_absolutely_input_names=inputs if request.get("keep_layout") else None,
            non_verbose=True,
        )
        (made,) = Path(folder).glob("*_float32.tflite")
        shutil.copyfile(made, request["output"])
    return _describe(request["output"])


def check() -> dict[str, Any]:
    """Convert a small convolution."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 3])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "net.onnx", Path(folder) / "net.tflite"
        onnx.save(model, source)
        return answer({"model": str(source), "output": str(made)})


def _describe(path: str) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    return {
        kind: [
            {"name": d["name"], "shape": d["shape"].tolist(), "dtype": d["dtype"].__name__}
            for d in details
        ]
        for kind, details in (
            ("inputs", interpreter.get_input_details()),
            ("outputs", interpreter.get_output_details()),
        )
    }
