"""The ways in which onnx2tf is given a graph; what it makes of them, the toolchains' tests say."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from converters.toolchains.runners.onnx2tf_convert import _NotConvertedError, _set_slices_apart

from .onnx_nets import net

SHAPE = (2, 4, 4)


def shortcut() -> bytes:
    """A tensor that a slice and a convolution read, as the shortcuts of ResNets do."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"], strides=[2, 2]),
        helper.make_node("Slice", ["r", "starts", "ends", "axes", "steps"], ["s"]),
        helper.make_node("Add", ["c", "s"], ["y"]),
    ]
    ints = {"starts": [0, 0], "ends": [9, 9], "axes": [2, 3], "steps": [2, 2]}
    constants = {name: np.array(value, np.int64) for name, value in ints.items()}
    return net(nodes, {"w": np.ones((2, 2, 1, 1), np.float32), **constants}, SHAPE)


def answer(path: Path) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_slice_gets_an_input_of_its_own_and_the_graph_computes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(shortcut())
    wanted = answer(path)
    _set_slices_apart(path)
    nodes = {node.op_type: node for node in onnx.load(path).graph.node}
    assert nodes["Slice"].input[0] == nodes["Identity"].output[0]
    assert nodes["Identity"].input[0] == nodes["Conv"].input[0] == "r"
    np.testing.assert_array_equal(answer(path), wanted)


def test_without_slices_there_is_no_such_way(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(net([helper.make_node("Relu", ["x"], ["y"])], {}, SHAPE))
    before = path.read_bytes()
    with pytest.raises(_NotConvertedError):
        _set_slices_apart(path)
    assert path.read_bytes() == before
