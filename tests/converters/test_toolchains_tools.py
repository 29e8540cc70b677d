"""Each tool does in its own environment what it is kept for."""

import os
from pathlib import Path

import numpy as np
import pytest

from converters.toolchains import store
from converters.toolchains.doctor import examine
from converters.toolchains.exchange import ask
from edgeml.errors import ToolchainError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kept_toolchains"),
]


def prepared(name: str) -> store.Installed:
    """The toolchain, installed where it is not; kept for the next run of the tests."""
    try:
        return store.install(name)
    except ToolchainError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"the toolchain {name} cannot be installed here: {error.why}")


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
    data = tmp_path / "calibration.npz"
    np.savez(data, x=np.load(folder / "calibration.npz")["x"].astype(np.float32))
    request = {"model": str(folder / "float.tflite"), "calibration": str(data)}
    made = [tmp_path / "one.tflite", tmp_path / "two.tflite"]
    reply = ask(toolchain, {**request, "output": str(made[0])})
    before, after = reply["bytes"]
    assert after < before / 2
    assert reply["quantized_tensors"] > 20
    ask(toolchain, {**request, "output": str(made[1])})
    assert made[0].read_bytes() == made[1].read_bytes()


def test_onnx2tf_converts_a_network(shared_models: Path, tmp_path: Path) -> None:
    try:
        toolchain = prepared("onnx2tf")
    except ToolchainError as error:
        assert "needs Python >=3.10,<3.13, and there is none" in error.what
        return
    output = tmp_path / "yunet.tflite"
    model = str(shared_models / "yunet" / "float.onnx")
    reply = ask(toolchain, {"model": model, "output": str(output)})
    (source,) = reply["inputs"]
    assert (source["shape"], source["dtype"]) == ([1, 320, 320, 3], "float32")
    assert len(reply["outputs"]) == 12
    assert output.stat().st_size > 300_000


@pytest.mark.parametrize("name", ["nncf", "ai-edge-quantizer", "onnx2tf"])
def test_the_doctor_finds_the_tools_working(name: str) -> None:
    prepared(name)
    diagnosis = examine(name)
    assert diagnosis.problems == ()
    assert diagnosis.checked
