"""A float `.tflite` model is described as an ONNX one is; others are refused with the reason."""

from pathlib import Path

import pytest

from converters.axes import fix_axes
from converters.cli import inspect
from converters.litert.model import load_tflite
from converters.model import load_model
from edgeml.errors import ModelError, UserError
from hardware.runtimes.litert import LiteRtRuntime


@pytest.fixture
def resnet(shared_models: Path) -> Path:
    return shared_models / "cifar_resnet8" / "float.tflite"


def test_a_float_model_has_inputs_outputs_and_operators(resnet: Path) -> None:
    model = load_model(resnet)
    assert model.format == "tflite"
    assert [str(spec) for spec in model.inputs] == ["input_1 float32[axis0, 32, 32, 3]"]
    assert [str(spec) for spec in model.outputs] == ["Identity float32[axis0, 10]"]
    assert (model.operators["CONV_2D"], model.operators["FULLY_CONNECTED"]) == (9, 1)
    assert model.parameters == 77708
    assert 0 < model.matrix_share < 0.1
    assert model.data == resnet.read_bytes()


def test_a_recurrent_net_is_known_by_its_operators(shared_models: Path) -> None:
    model = load_tflite(shared_models / "mnist_lstm" / "float.tflite")
    assert any(name.endswith(("LSTM", "WHILE")) for name in model.operators)


@pytest.mark.parametrize(
    "name", ["cifar_resnet8/int8_ref", "kws_dscnn/hybrid", "mnist_lstm/int8_ref"]
)
def test_a_model_that_is_quantized_already_is_refused(name: str, shared_models: Path) -> None:
    with pytest.raises(ModelError, match="is quantized already") as caught:
        load_model(shared_models / f"{name}.tflite")
    assert "Give the float model" in str(caught.value)


def test_a_damaged_file_is_refused(resnet: Path, tmp_path: Path) -> None:
    data = resnet.read_bytes()
    for cut in (12, 1000, len(data) // 2):
        path = tmp_path / f"cut-{cut}.tflite"
        path.write_bytes(data[:cut])
        with pytest.raises(ModelError, match="cannot load"):
            load_model(path)
    with pytest.raises(ModelError, match="No model file"):
        load_model(tmp_path / "nowhere.tflite")


def test_without_litert_the_error_says_what_to_install(
    resnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiteRtRuntime, "info", lambda _: None)
    with pytest.raises(ModelError, match=r"litert is not installed.*edgeml\[litert\]"):
        load_model(resnet)


def test_axes_of_a_tflite_model_are_not_fixed(resnet: Path) -> None:
    model = load_model(resnet)
    assert fix_axes(model, {}) is model
    with pytest.raises(UserError, match="--dim is for ONNX models"):
        fix_axes(model, {"axis0": 1})


def test_inspect_shows_it(resnet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(resnet)
    said = capsys.readouterr().out
    assert "tflite, 77708 parameters" in said
    assert "CONV_2D 9" in said
