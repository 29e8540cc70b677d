"""A model is folded and simplified before it is quantized, and computes the same as before."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import shared_models as real
from converters.methods import NotQuantizableError, prepare
from converters.methods.sessions import open_bytes, open_model


def model(nodes: list[Any], shape: Sequence[int], *, unused: bool = False, **more: Any) -> bytes:
    inputs = ["x", "unused"] if unused else ["x"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(i, TensorProto.FLOAT, ["N", *shape]) for i in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in more.items()],
    )
    sets = [helper.make_opsetid("", 17)]
    data: bytes = helper.make_model(graph, opset_imports=sets, ir_version=8).SerializeToString()
    return data


def feeds(*shape: int, inputs: int = 1) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        [rng.normal(size=(1, *shape)).astype(np.float32) for _ in range(inputs)] for _ in range(3)
    ]


def operators(prepared: Any) -> list[str]:
    return [node.op_type for node in prepared.proto.graph.node]


def with_leftovers() -> bytes:
    """Every other row and column in two steps, and a flattening written out, as exporters do."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "eight", "two", "two"], ["rows"]),
        helper.make_node("Slice", ["rows", "zero", "eight", "three", "two"], ["few"]),
        helper.make_node("Shape", ["few"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["few", "to"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    numbers = {"zero": [0], "two": [2], "three": [3], "eight": [8], "rest": [-1]}
    w = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
    return model(nodes, (1, 8, 8), w=w, **{k: np.array(v) for k, v in numbers.items()})


def test_what_exporters_leave_is_gone_and_outputs_are_the_same() -> None:
    samples = feeds(1, 8, 8)
    prepared = prepare(with_leftovers(), samples)
    assert operators(prepared) == ["Slice", "Reshape", "MatMul"]
    assert prepared.notes == ()
    [wanted] = open_bytes(with_leftovers()).run(None, {"x": samples[0][0]})
    [given] = open_model(prepared.proto).run(None, {"x": samples[0][0]})
    np.testing.assert_allclose(given, wanted, rtol=1e-5)


def test_without_samples_nothing_is_simplified_that_could_not_be_checked() -> None:
    assert operators(prepare(with_leftovers())).count("Slice") == 2


def test_a_simplification_that_changes_outputs_is_left_out_and_said() -> None:
    # Two nodes of the same form that answer differently: as one, their difference is nothing.
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["a"]),
        helper.make_node("RandomNormalLike", ["x"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    prepared = prepare(model(nodes, (4,)), feeds(4))
    assert operators(prepared).count("RandomNormalLike") == 2
    [note] = prepared.notes
    assert note.startswith("The model is not simplified: onnxslim changed its outputs by")


def test_a_simplification_that_loses_an_input_is_left_out_and_said() -> None:
    data = model([helper.make_node("Relu", ["x"], ["y"])], (4,), unused=True)
    prepared = prepare(data, feeds(4, inputs=2))
    assert len(prepared.proto.graph.input) == 2
    assert prepared.notes == (
        "The model is not simplified: onnxslim failed (it dropped an input).",
    )


def test_a_model_that_answers_otherwise_each_time_cannot_be_prepared() -> None:
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])]
    data = model(nodes, (64,), ratio=np.float32(0.5), training=np.bool_(True))
    with pytest.raises(NotQuantizableError, match="changed what it computes"):
        prepare(data, feeds(64))


def test_the_same_model_is_prepared_to_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(with_leftovers())
    script = """
import hashlib, sys
from pathlib import Path
import numpy as np
from converters.methods import prepare
feeds = [[np.ones((1, 1, 8, 8), np.float32)]]
made = prepare(Path(sys.argv[1]).read_bytes(), feeds).proto.SerializeToString(deterministic=True)
print(hashlib.sha256(made).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "m.onnx")],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["cifar_resnet20", "ppocr_rec", "yunet"])
def test_trained_models_are_simplified(shared_models: Path, name: str) -> None:
    folder = shared_models / name
    data = (folder / "float.onnx").read_bytes()
    with np.load(folder / "calibration.npz") as arrays:
        x = real.prepared(json.loads((folder / "spec.json").read_text()), arrays["x"][:2])
    made = prepare(data, [[sample[None]] for sample in x])
    assert made.notes == ()
    assert len(operators(made)) < len(operators(prepare(data)))
