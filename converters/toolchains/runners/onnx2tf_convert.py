"""onnx2tf: an ONNX file to a float32 .tflite file with the same inputs and outputs."""

import tempfile
from pathlib import Path
from typing import Any

_EQUAL_WITHIN = 1e-3  # of an output's range
_WAYS = ("folded", "apart", "as it is")
_LEAST_RANGE = 1e-2  # kernels' own errors are absolute where outputs are tiny


class _NotConvertedError(Exception):
    """What came out is not the model."""


def prepare() -> None:
    """Import what converting takes."""
    import onnx2tf  # noqa: F401
    import onnxruntime  # noqa: F401


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Convert `model` into `output`, a float32 .tflite file.

    `samples` (.npz) holds an array for each of the `inputs` named, in order, whose rows are
    whole inputs: their shape becomes the file's, and on them it must compute what the ONNX file
    does. Inputs and outputs keep their names, order and layout.

    The graph is folded first, which joins products with their sums and computes shapes. Where that
    fails, each slice gets its input from a node of its own (onnx2tf 2.6.9 loses one that is read by
    a convolution, too); at last it is converted as it is: onnx2tf manages some models one way only.

    The reply: `inputs` and `outputs` of the .tflite file, each with name, shape and type, and
    `difference`, the largest of any output in shares of its range; or `refused`, why this model
    cannot be converted.
    """
    import numpy as np

    with np.load(request["samples"]) as arrays:
        samples = dict(zip(request["inputs"], arrays.values(), strict=True))
    output = Path(request["output"])
    reasons = []
    with tempfile.TemporaryDirectory() as folder:
        for way in _WAYS:
            try:
                return _answer(request["model"], samples, output, Path(folder), way)
            except (Exception, SystemExit) as error:  # noqa: BLE001 -- it raises anything
                reasons.append(_sentence(error))
    return {"refused": " ".join(filter(None, dict.fromkeys(reasons)))}


def check() -> dict[str, Any]:
    """Convert a small convolution."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 3])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        source, made, data = (str(Path(folder) / n) for n in ("a.onnx", "b.tflite", "x.npz"))
        onnx.save(model, source)
        np.savez(data, rng.normal(size=(2, 1, 3, 8, 8)).astype(np.float32))
        request = {"model": source, "output": made, "inputs": ["x"], "samples": data}
        reply = answer(request)
        if "refused" in reply:
            raise SystemExit(reply["refused"])
        return reply


def _answer(
    source: str, samples: dict[str, Any], output: Path, folder: Path, way: str
) -> dict[str, Any]:
    """Convert one way; raises what onnx2tf raises, and where the file computes other numbers."""
    ready = folder / f"ready {way}.onnx"
    wanted = _prepare(source, samples, ready, folding=way != _WAYS[-1])
    if way == _WAYS[1]:
        _set_slices_apart(ready)
    made = _convert(ready, folder / f"made {way}")
    if unknown := _custom_operators(made):
        raise _NotConvertedError(f"LiteRT has no operator for {', '.join(unknown)}")
    shapes = {name: list(rows[0].shape) for name, rows in wanted.items()}
    _finish(made, list(samples), shapes, output)
    return _compare(output, samples, wanted)


def _prepare(source: str, samples: dict[str, Any], ready: Path, *, folding: bool) -> dict[str, Any]:
    """Write the graph with the samples' shapes; return its outputs on the samples, by name.

    Outputs of more than two axes are made flat: onnx2tf keeps these as they are, and would
    turn others to NHWC.
    """
    import onnx
    import onnxruntime as ort

    model = onnx.load(source)
    for value in model.graph.input:
        if value.name in samples:
            del value.type.tensor_type.shape.dim[:]
            for size in samples[value.name][0].shape:
                value.type.tensor_type.shape.dim.add().dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]  # of other shapes
    onnx.save(model, ready)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if folding:
        options.optimized_model_filepath = str(ready)
    data, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    session = ort.InferenceSession(data, options, providers=providers)
    count = len(next(iter(samples.values())))
    rows = [
        session.run(None, {name: array[i] for name, array in samples.items()}) for i in range(count)
    ]
    names = [value.name for value in session.get_outputs()]
    wanted = dict(zip(names, zip(*rows, strict=True), strict=True))
    _flatten(ready, {name: list(outputs[0].shape) for name, outputs in wanted.items()})
    return wanted


def _set_slices_apart(ready: Path) -> None:
    """Put a node that changes nothing before each slice.

    Raises:
        _NotConvertedError: there are no slices: this way is none.
    """
    import onnx

    model = onnx.load(ready)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Slice":
            made = f"{node.output[0]}/apart"
            nodes.append(onnx.helper.make_node("Identity", [node.input[0]], [made], name=made))
            node.input[0] = made
        nodes.append(node)
    if len(nodes) == len(model.graph.node):
        raise _NotConvertedError("")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, ready)


def _flatten(ready: Path, shapes: dict[str, list[int]]) -> None:
    import numpy as np
    import onnx

    model = onnx.load(ready)
    graph = model.graph
    for value in graph.output:
        shape = shapes[value.name]
        if not _is_turned(shape):
            continue
        whole, target = f"{value.name}/whole", f"{value.name}/flat"
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [whole if name == value.name else name for name in names]
        flat = [shape[0], int(np.prod(shape[1:]))]
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(flat), target))
        graph.node.append(onnx.helper.make_node("Reshape", [whole, target], [value.name]))
        element = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, flat))
    onnx.save(model, ready)


def _is_turned(shape: list[int]) -> bool:
    """Whether onnx2tf might order the axes of such an output anew."""
    return len(shape) > 2  # noqa: PLR2004


def _convert(ready: Path, folder: Path) -> Path:
    import onnx
    import onnx2tf

    graph = onnx.load(ready).graph
    known = {tensor.name for tensor in graph.initializer}
    onnx2tf.convert(
        input_onnx_file_path=str(ready),
        output_folder_path=str(folder),
        copy_onnx_input_output_names_to_tflite=True,
        keep_shape_absolutely_input_names=[v.name for v in graph.input if v.name not in known],
        non_verbose=True,
    )
    (made,) = folder.glob("*_float32.tflite")
    return made


def _custom_operators(made: Path) -> list[str]:
    """Operators that onnx2tf wrote down as custom ones, which nothing executes."""
    codes = _read(made).operatorCodes
    return sorted({code.customCode.decode() for code in codes if code.customCode})


def _finish(made: Path, inputs: list[str], shapes: dict[str, list[int]], output: Path) -> None:
    """Write the file with the ONNX model's inputs and outputs: names, order and shapes."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = _read(made)
    graph = model.subgraphs[0]
    sides = {"inputs": inputs, "outputs": list(shapes)}
    for side, wanted in sides.items():
        found = {graph.tensors[i].name.decode(): i for i in getattr(graph, side)}
        if sorted(found) != sorted(wanted):
            raise _NotConvertedError(f"The {side} {', '.join(wanted)} became {', '.join(found)}")
        setattr(graph, side, [found[name] for name in wanted])
    for position, (name, shape) in enumerate(shapes.items()):
        if _is_turned(shape):
            graph.outputs[position] = _reshaped(model, graph.outputs[position], name, shape)
    maps = {
        side: [
            schema.TensorMapT(name=name, tensorIndex=index)
            for name, index in zip(wanted, getattr(graph, side), strict=True)
        ]
        for side, wanted in sides.items()
    }
    model.signatureDefs = [schema.SignatureDefT(signatureKey="serving_default", **maps)]
    output.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _reshaped(model: Any, flat: int, name: str, shape: list[int]) -> int:
    """Add a last operator that gives a flat output its shape; returns the new tensor."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    graph, reshape = model.subgraphs[0], schema.BuiltinOperator.RESHAPE
    codes = [code.builtinCode for code in model.operatorCodes]
    if reshape not in codes:
        model.operatorCodes.append(
            schema.OperatorCodeT(builtinCode=reshape, deprecatedBuiltinCode=reshape)
        )
        codes.append(reshape)
    source, axes = graph.tensors[flat], np.array(shape, np.int32)
    source.name = f"{name}/flat"
    model.buffers.append(schema.BufferT(data=np.frombuffer(axes.tobytes(), np.uint8)))
    graph.tensors += [
        schema.TensorT(
            name=f"{name}/shape",
            shape=np.array([len(shape)], np.int32),
            type=schema.TensorType.INT32,
            buffer=len(model.buffers) - 1,
        ),
        schema.TensorT(name=name, shape=axes, type=source.type),
    ]
    target, made = len(graph.tensors) - 2, len(graph.tensors) - 1
    graph.operators.append(
        schema.OperatorT(
            opcodeIndex=codes.index(reshape),
            inputs=[flat, target],
            outputs=[made],
            builtinOptionsType=schema.BuiltinOptions.ReshapeOptions,
            builtinOptions=schema.ReshapeOptionsT(newShape=axes),
        )
    )
    return made


def _read(path: Path) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(path))


def _compare(path: Path, samples: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Run the file on the samples, compare and describe it."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    difference = 0.0
    for row in range(len(next(iter(samples.values())))):
        interpreter.reset_all_variables()
        for source in inputs:
            interpreter.set_tensor(source["index"], samples[source["name"]][row])
        interpreter.invoke()
        for target in outputs:
            want, got = wanted[target["name"]][row], interpreter.get_tensor(target["index"])
            if (want.shape, want.dtype.kind) != (got.shape, got.dtype.kind):
                was, became = (f"{a.dtype}{list(a.shape)}" for a in (want, got))
                raise _NotConvertedError(f"The output {target['name']}, {was}, became {became}")
            if want.size:
                scale = max(float(np.ptp(want)), float(np.abs(want).max()), _LEAST_RANGE)
                off = float(np.abs(want.astype(np.float64) - got).max()) / scale
                difference = max(difference, off) if np.isfinite(off) else np.inf
    if difference > _EQUAL_WITHIN:
        raise _NotConvertedError(
            f"What it makes computes other numbers, by {100 * difference:.2g} % of the range"
        )
    return {
        kind: [
            {"name": d["name"], "shape": d["shape"].tolist(), "dtype": d["dtype"].__name__}
            for d in details
        ]
        for kind, details in (("inputs", inputs), ("outputs", outputs))
    } | {"difference": difference}


def _sentence(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines and isinstance(error, _NotConvertedError):
        return ""
    lines = lines or [""]
    what = "" if isinstance(error, _NotConvertedError) else f"{type(error).__name__}: "
    return f"{what}{lines[0].strip().rstrip('.')}."
