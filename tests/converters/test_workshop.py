"""What the workshop makes of a move: what would overflow in half precision stays in float."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.cache import Cache
from converters.loading import load
from converters.methods import quantize
from converters.progress import Silent
from converters.recipe import Method, float16
from converters.request import Request
from converters.search import Kind, Move
from converters.workshop import Workshop
from hardware.runtimes import open_session


def write_overflowing(folder: Path) -> Path:
    """Scores that are a million between two layers, and small again at the end."""
    rng = np.random.default_rng(0)
    constants = {
        "a": rng.uniform(200, 400, (16, 8)).astype(np.float32),
        "small": np.float32(1e-6),
        "b": rng.normal(0, 1, (8, 4)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["large"], name="first"),
            helper.make_node("Split", ["large"], ["left", "right"], name="part", axis=1),
            helper.make_node("Concat", ["right", "left"], ["turned"], name="turn", axis=1),
            helper.make_node("Mul", ["turned", "small"], ["scaled"], name="scale"),
            helper.make_node("MatMul", ["scaled", "b"], ["y"], name="second"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
        folder / "net.onnx",
    )
    return folder / "net.onnx"


@pytest.fixture
def open_workshop(tmp_path: Path) -> Callable[[Path], Workshop]:
    def opened(model: Path) -> Workshop:
        rng = np.random.default_rng(1)
        for name, count in (("calibration", 8), ("evaluation", 8)):
            x = rng.uniform(100, 200, (count, 16)).astype(np.float32)
            np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(count) % 4)
        request = Request(
            model=model,
            calibration=str(tmp_path / "calibration.npz"),
            evaluation=str(tmp_path / "evaluation.npz"),
            name="net",
            version="1",
            out=tmp_path / "out",
            targets=("cpu",),
        )
        return Workshop(load(request, Silent()), tmp_path, Cache(None), Silent())

    return opened


def test_nodes_that_overflow_half_precision_stay_in_float(
    open_workshop: Callable[[Path], Workshop], tmp_path: Path
) -> None:
    workshop = open_workshop(write_overflowing(tmp_path))
    family = workshop.family_of("onnxruntime")
    rules = family.rules(Move(kind=Kind.FLOAT16))
    assert rules[:-1] == float16()
    assert (rules[-1].method, rules[-1].scope) == (Method.FLOAT32, "first|part|scale|turn")

    naive = tmp_path / "naive.onnx"
    naive.write_bytes(quantize(workshop.prepared, None, float16()).data)
    made = family.make(rules)
    feed = next(workshop.feeds(1))
    wanted, without, kept = (
        open_session("onnxruntime", path).run(feed)[0]
        for path in (workshop.float.path, naive, made.path)
    )
    assert not np.isfinite(without).all()
    assert np.allclose(kept, wanted, rtol=1e-2, atol=1e-2 * np.abs(wanted).max())


def test_a_model_that_does_not_overflow_is_put_into_half_precision_as_a_whole(
    open_workshop: Callable[[Path], Workshop], tmp_path: Path
) -> None:
    path = write_overflowing(tmp_path)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "a":
            small = numpy_helper.to_array(tensor) / 100
            tensor.CopyFrom(numpy_helper.from_array(small, "a"))
    onnx.save(model, path)
    family = open_workshop(path).family_of("onnxruntime")
    assert family.rules(Move(kind=Kind.FLOAT16)) == float16()
