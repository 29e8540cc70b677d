"""ai-edge-quantizer: a float .tflite file to an int8 one."""

import tempfile
from pathlib import Path
from typing import Any

_KEY = "serving_default"
_CHECK_SAMPLES = 8
_FLOAT_ENDS = [
    {"regex": ".*", "operation": end, "algorithm_key": "no_quantize"} for end in ("INPUT", "OUTPUT")
]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Quantize `model` into `output`.

    The request: `model`, `output`, `recipe` (ai-edge-quantizer's list of rules, or the name of
    a function of its `recipe` module, by default `static_wi8_ai8`: int8 weights and
    activations), `calibration` (.npz with x, samples in the model's layout, for one input)
    where the recipe needs ranges, and `int8_ends` (optional) to make inputs and outputs int8,
    too. The reply: `bytes` of both files and `quantized_tensors`.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    source = request["model"]
    if not Interpreter(source).get_signature_list():
        source = _with_signature(source)
    key, signature = next(iter(Interpreter(source).get_signature_list().items()))
    (name,) = signature["inputs"]
    tool = quantizer.Quantizer(source)
    rules = request.get("recipe", "static_wi8_ai8")
    rules = getattr(recipe, rules)() if isinstance(rules, str) else rules
    tool.load_quantization_recipe(rules if request.get("int8_ends") else [*rules, *_FLOAT_ENDS])
    ranges = None
    if tool.need_calibration:
        samples = np.load(request["calibration"])["x"]
        ranges = tool.calibrate({key: [{name: sample[None]} for sample in samples]})
    result = tool.quantize(ranges)
    Path(request["output"]).write_bytes(result.quantized_model)
    details = Interpreter(request["output"]).get_tensor_details()
    return {
        "bytes": [Path(request[file]).stat().st_size for file in ("model", "output")],
        "quantized_tensors": sum(
            d["dtype"] is np.int8 and bool(len(d["quantization_parameters"]["scales"]))
            for d in details
        ),
    }


def check() -> dict[str, Any]:
    """Quantize a small fully connected layer that is made here, and run it."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    rng = np.random.default_rng(0)
    x = rng.normal(size=(_CHECK_SAMPLES, 64)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, output, data = (str(Path(folder) / n) for n in ("a.tflite", "b.tflite", "x.npz"))
        _write_dense(source, rng.normal(size=(32, 64)).astype(np.float32))
        np.savez(data, x=x)
        reply = answer({"model": source, "output": output, "calibration": data})
        before, after = (_run(Interpreter(path), x[:1]) for path in (source, output))
    reply["relative_error"] = float(np.abs(before - after).max() / np.abs(before).max())
    return reply


def _with_signature(path: str) -> str:
    """A copy with the signature that calibration asks for, in the current folder."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(path)
    graph = model.subgraphs[0]

    def tensors(indices: Any) -> list[Any]:
        return [schema.TensorMapT(name=graph.tensors[i].name, tensorIndex=i) for i in indices]

    model.signatureDefs = [
        schema.SignatureDefT(
            inputs=tensors(graph.inputs), outputs=tensors(graph.outputs), signatureKey=_KEY
        )
    ]
    copy = Path("with_signature.tflite")
    copy.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return str(copy)


def _write_dense(path: str, weight: Any) -> None:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    def tensor(name: str, shape: list[int], buffer: int = 0) -> Any:
        return schema.TensorT(name=name, shape=np.array(shape, np.int32), buffer=buffer)

    outputs, inputs = weight.shape
    graph = schema.SubGraphT(
        name="main",
        tensors=[
            tensor("x", [1, inputs]),
            tensor("w", [outputs, inputs], 1),
            tensor("y", [1, outputs]),
        ],
        inputs=[0],
        outputs=[2],
        operators=[
            schema.OperatorT(
                opcodeIndex=0,
                inputs=[0, 1, -1],
                outputs=[2],
                builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
                builtinOptions=schema.FullyConnectedOptionsT(),
            )
        ],
    )
    dense = schema.BuiltinOperator.FULLY_CONNECTED
    model = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(builtinCode=dense, deprecatedBuiltinCode=dense)],
        subgraphs=[graph],
        buffers=[schema.BufferT(), schema.BufferT(data=np.frombuffer(weight.tobytes(), np.uint8))],
    )
    Path(path).write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _run(interpreter: Any, x: Any) -> Any:
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
