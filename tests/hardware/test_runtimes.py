"""Running a model: what fits runs, what does not is said."""

from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError, ModelError
from hardware.runtimes import SessionOptions, TensorSpec, open_session, runtimes
from hardware.runtimes.refusal import require_in_use
from tests.hardware.models import linear
from tests.hardware.plugins import install


def test_a_model_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    assert session.inputs == (TensorSpec(name="image", shape=("N", 1, 4, 4), dtype="float32"),)
    assert session.outputs[0].name == "logits"
    [logits] = session.run([np.ones((1, 1, 4, 4), np.float32)])
    assert logits.shape == (1, 3)
    assert session.placement() == {"CPUExecutionProvider": 1}


@pytest.mark.parametrize(
    "wrong",
    [np.ones((1, 1, 4, 5), np.float32), np.ones((1, 1, 4, 4), np.float64), np.ones(3, np.float32)],
)
def test_an_input_that_does_not_fit_is_refused_with_both_shapes(
    tmp_path: Path, wrong: np.ndarray
) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"wants image float32\[N, 1, 4, 4\]"):
        session.run([wrong])


def test_the_wrong_number_of_inputs_is_refused(tmp_path: Path) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="does not fit"):
        session.run([])


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07" * 50])
def test_a_file_that_is_no_model_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot load broken\.onnx"):
        open_session("onnxruntime", path)


def test_a_provider_that_is_not_there_is_no_silent_fall_back(tmp_path: Path) -> None:
    options = SessionOptions(provider="QNNExecutionProvider")
    with pytest.raises(DeviceError, match="no provider QNNExecutionProvider"):
        open_session("onnxruntime", linear(tmp_path / "m.onnx"), options)


def test_a_runtime_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="runtime rknn is not installed"):
        open_session("rknn", linear(tmp_path / "m.onnx"))


def test_our_runtime_is_registered_as_an_entry_point_too() -> None:
    from importlib.metadata import entry_points

    [entry] = [e for e in entry_points(group="edgeml.runtimes") if e.name == "onnxruntime"]
    assert type(runtimes()["onnxruntime"]) is entry.load()


PLUGIN = """
class Made:
    name = "tpu9000"
    def info(self):
        return None
make = Made
"""


def test_a_plug_in_brings_a_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "edgeml.runtimes", "tpu9000", PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    assert runtimes()["tpu9000"].name == "tpu9000"


def test_a_broken_plug_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "edgeml.runtimes", "broken", "import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match=r"plug-in broken cannot .* 'not_there_at_all"):
        runtimes()


def test_a_provider_that_the_session_does_not_use_was_dropped() -> None:
    require_in_use("onnxruntime", "NpuProvider", ["NpuProvider", "CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="dropped the provider NpuProvider"):
        require_in_use("onnxruntime", "NpuProvider", ["CPUExecutionProvider"])


def test_runs_on_one_thread_and_on_two_give_the_same(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx")
    image = np.random.default_rng(5).normal(size=(1, 1, 4, 4)).astype(np.float32)
    answers = [
        open_session("onnxruntime", path, SessionOptions(threads=threads)).run([image])[0]
        for threads in (1, 2)
    ]
    np.testing.assert_array_equal(*answers)


def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load nowhere\.onnx"):
        open_session("onnxruntime", tmp_path / "nowhere.onnx")
