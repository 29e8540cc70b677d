"""Each tool does in its own environment what it is kept for."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converters.toolchains.doctor import examine
from converters.toolchains.exchange import ask

from .locked_tools import named_log, prepared

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kept_toolchains"),
]


def float_data(folder: Path, source: Path, *, count: int, labelled: bool = False) -> str:
    """Samples of a CIFAR network in its input layout."""
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    with np.load(source) as data:
        x = ((data["x"][:count] / 255 - mean) / spread).transpose(0, 3, 1, 2).astype(np.float32)
        arrays = {"x": x, **({"y": data["y"][:count]} if labelled else {})}
    path = folder / f"float-{source.name}"
    np.savez(path, **arrays)
    return str(path)


def test_nncf_quantizes_with_and_without_accuracy_control(
    shared_models: Path, tmp_path: Path
) -> None:
    toolchain = prepared("nncf")
    folder = shared_models / "cifar_resnet20"
    request = {
        "model": str(folder / "float.onnx"),
        "calibration": float_data(tmp_path, folder / "calibration.npz", count=64),
        "evaluation": float_data(tmp_path, folder / "dev.npz", count=100, labelled=True),
    }
    plain = ask(
        toolchain, {**request, "output": str(tmp_path / "plain.onnx"), "method": "quantize"}
    )
    assert plain["quantize_nodes"] > 20
    assert plain["top1"] > 0.75
    controlled = ask(
        toolchain,
        {
            **request,
            "output": str(tmp_path / "controlled.onnx"),
            "method": "quantize_with_accuracy_control",
            "max_drop": 0.05,
        },
    )
    assert controlled["top1"] > 0.75
    assert (tmp_path / "controlled.onnx").stat().st_size > 100_000


def test_ai_edge_quantizer_makes_an_int8_file_with_float_ends(
    shared_models: Path, tmp_path: Path
) -> None:
    toolchain = prepared("ai-edge-quantizer")
    folder = shared_models / "cifar_resnet8"
    samples = np.load(folder / "calibration.npz")["x"].astype(np.float32)[:, None]
    samples.tofile(tmp_path / "samples")
    calibration = [
        {"file": str(tmp_path / "samples"), "dtype": "<f4", "shape": list(samples.shape)}
    ]
    request = {"model": str(folder / "float.tflite"), "calibration": calibration}
    made = [tmp_path / "one.tflite", tmp_path / "two.tflite"]
    reply = ask(toolchain, {**request, "output": str(made[0])})
    before, after = reply["bytes"]
    assert after < before / 2
    assert reply["quantized_weights"] == 10
    assert reply["quantized_tensors"] > 20
    ask(toolchain, {**request, "output": str(made[1])})
    assert made[0].read_bytes() == made[1].read_bytes()


SHAPES = {
    "cifar_resnet20": (3, 32, 32),
    "cifar_resnet8": (32, 32, 3),
    "kws_dscnn": (49, 10, 1),
    "mnist_lstm": (28, 28),
    "ppocr_rec": (3, 48, 320),
    "yunet": (3, 320, 320),
}


@pytest.mark.parametrize("name", SHAPES)
def test_onnx2tf_converts_a_network_and_keeps_its_tensors(
    name: str, shared_models: Path, tmp_path: Path
) -> None:
    toolchain = prepared("onnx2tf")
    model = shared_models / name / "float.onnx"
    request = convertible(model, (1, *SHAPES[name]), tmp_path)
    reply = ask(toolchain, request)
    assert "refused" not in reply
    assert [tuple(i["shape"]) for i in reply["inputs"]] == [(1, *SHAPES[name])]
    assert [o["name"] for o in reply["outputs"]] == [
        value.name for value in onnx.load(model).graph.output
    ]
    assert reply["difference"] < 1e-3


def test_onnx2tf_keeps_the_layout_of_an_image_that_a_model_answers_with(tmp_path: Path) -> None:
    toolchain = prepared("onnx2tf")
    rng = np.random.default_rng(0)
    model = save_net(
        tmp_path,
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        {"w": rng.normal(size=(5, 3, 3, 3)).astype(np.float32)},
        (3, 6, 6),
    )
    reply = ask(toolchain, convertible(model, (1, 3, 6, 6), tmp_path))
    assert reply["outputs"][0]["shape"] == [1, 5, 6, 6]


def test_onnx2tf_names_an_operator_that_litert_has_not(tmp_path: Path) -> None:
    toolchain = prepared("onnx2tf")
    model = save_net(tmp_path, [onnx.helper.make_node("Det", ["x"], ["y"])], {}, (4, 4))
    reply = ask(toolchain, convertible(model, (1, 4, 4), tmp_path))
    assert reply["refused"] == "LiteRT has no operator for ONNX_DET."
    assert reply["refused"] in named_log(reply["log"])


def convertible(model: Path, shape: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """A request for onnx2tf, with samples of noise."""
    samples = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    np.savez(folder / "samples.npz", samples)
    return {
        "model": str(model),
        "inputs": [onnx.load(model).graph.input[0].name],
        "samples": str(folder / "samples.npz"),
        "output": str(folder / "made.tflite"),
    }


def save_net(
    folder: Path, nodes: list[Any], constants: dict[str, np.ndarray], shape: tuple[int, ...]
) -> Path:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, ["N", *shape])],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("name", ["nncf", "ai-edge-quantizer", "onnx2tf"])
def test_the_doctor_finds_the_tools_working(name: str) -> None:
    prepared(name)
    diagnosis = examine(name)
    assert diagnosis.problems == ()
    assert diagnosis.checked
