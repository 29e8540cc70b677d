"""ai-edge-quantizer: a float .tflite file to one of fewer bits."""

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_KEY = "serving_default"
_CHECK_SAMPLES = 8
_FLOAT_ENDS = [
    {"regex": ".*", "operation": end, "algorithm_key": "no_quantize"} for end in ("INPUT", "OUTPUT")
]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Quantize `model` into `output`; its inputs and outputs stay as they are.

    The request: `model`, `output`, `recipe` (ai-edge-quantizer's list of rules, or the name of
    a function of its `recipe` module, by default `static_wi8_ai8`: int8 weights and
    activations), and where the recipe needs ranges `calibration`, for each input a `file` of bare
    numbers with its `dtype` and `shape`, whose rows are whole inputs, and `ranges`: `minmax`
    (the extremes, the default) or `average` (their moving average, the tool's own default).

    The reply: `bytes` of both files, `quantized_weights` and `quantized_tensors`, weights among
    them; or `refused`, why this model cannot be quantized so.
    """
    try:
        return _quantize(request)
    except Exception as error:  # noqa: BLE001 -- the tool raises whatever it meets
        lines = str(error).strip().splitlines() or [""]
        return {"refused": f"{type(error).__name__}: {lines[0].rstrip('.')}."}


def prepare() -> None:
    """Import what quantizing takes."""
    from ai_edge_litert import interpreter, schema_py_generated  # noqa: F401
    from ai_edge_litert.tools import flatbuffer_utils  # noqa: F401
    from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager  # noqa: F401


def _quantize(request: dict[str, Any]) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    source = request["model"]
    if not Interpreter(source).get_signature_list():
        source = _with_signature(source)
    key = next(iter(Interpreter(source).get_signature_list()))
    tool = quantizer.Quantizer(source)
    rules = request.get("recipe", "static_wi8_ai8")
    rules = getattr(recipe, rules)() if isinstance(rules, str) else rules
    rules = [*rules, *_FLOAT_ENDS]
    tool.load_quantization_recipe(rules)
    ranges = None
    if tool.need_calibration:
        ranges = _ranges(source, key, rules, request)
    result = tool.quantize(ranges, enable_progress_report=False)
    Path(request["output"]).write_bytes(result.quantized_model)
    return {
        "bytes": [Path(request[file]).stat().st_size for file in ("model", "output")],
        **_counts(request["output"]),
    }


_KNOWN: dict[str, Any] = {}  # ranges by what they follow from: recipes that differ share them
_MOST_KNOWN = 4


def _ranges(source: str, key: str, rules: list[dict[str, Any]], request: dict[str, Any]) -> Any:
    """What calibration sees of every tensor that a recipe could quantize."""
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    updates = {"minmax": qsv_utils.min_max_update, "average": qsv_utils.moving_average_update}
    how = request.get("ranges", "minmax")
    static = next(rule for rule in rules if "activation_tensor_config" in rule.get("op_config", {}))
    everything = [{**static, "regex": ".*", "operation": "*"}, *_FLOAT_ENDS]
    model = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    known = json.dumps([model, how, everything, request["calibration"]], default=str)
    if known not in _KNOWN:
        manager = recipe_manager.RecipeManager()
        manager.load_quantization_recipe(everything)
        watcher = calibrator.Calibrator(source, num_threads=1, qsv_update_func=updates[how])
        samples = _Samples(_parameters(source, key), request["calibration"])
        watcher.calibrate({key: samples}, manager)
        if len(_KNOWN) == _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[known] = watcher.get_model_qsvs()
    return copy.deepcopy(_KNOWN[known])


class _Samples:
    """Samples as calibration takes them, read from the files as they are asked for."""

    def __init__(self, names: list[str], files: list[dict[str, Any]]) -> None:
        import numpy as np

        self._names = names
        self._arrays = [
            np.memmap(file["file"], file["dtype"], "r", shape=tuple(file["shape"]))
            for file in files
        ]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for rows in zip(*self._arrays, strict=True):
            yield dict(zip(self._names, rows, strict=True))


def _parameters(path: str, key: str) -> list[str]:
    """The signature's names of the inputs, in the order of the model's inputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    by_index = {
        details["index"]: name
        for name, details in interpreter.get_signature_runner(key).get_input_details().items()
    }
    return [by_index[details["index"]] for details in interpreter.get_input_details()]


def _counts(path: str) -> dict[str, int]:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    kinds = schema.TensorType
    small = {kinds.INT8, kinds.INT4, kinds.INT2, kinds.FLOAT16}
    model = flatbuffer_utils.read_model(path)
    tensors = [t for graph in model.subgraphs for t in graph.tensors if t.type in small]
    constant = [t for t in tensors if model.buffers[t.buffer].data is not None]
    return {"quantized_weights": len(constant), "quantized_tensors": len(tensors)}


def check() -> dict[str, Any]:
    """Quantize a small fully connected layer that is made here, and run it."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    rng = np.random.default_rng(0)
    x = rng.normal(size=(_CHECK_SAMPLES, 64)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, output, data = (str(Path(folder) / n) for n in ("a.tflite", "b.tflite", "x"))
        _write_dense(source, rng.normal(size=(32, 64)).astype(np.float32))
        x.tofile(data)
        calibration = {"file": data, "dtype": "<f4", "shape": [_CHECK_SAMPLES, 1, 64]}
        reply = answer({"model": source, "output": output, "calibration": [calibration]})
        if "refused" in reply:
            raise SystemExit(reply["refused"])
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
