"""Running a model: what fits runs, what does not is said."""

from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError, ModelError, UserError
from hardware.runtimes import (
    SessionOptions,
    TensorSpec,
    format_of,
    litert,
    open_session,
    runtimes,
    runtimes_for,
)
from hardware.runtimes.refusal import require_in_use
from tests.hardware.models import linear
from tests.hardware.plugins import install


def test_a_model_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    assert session.inputs == (TensorSpec(name="image", shape=("N", 1, 4, 4), dtype="float32"),)
    assert session.outputs[0].name == "logits"
    [logits] = session.run([np.ones((1, 1, 4, 4), np.float32)])
    assert logits.shape == (1, 3)
    assert session.placement() == {"CPUExecutionProvider": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((1, 1, 4, 5), np.float32),
        np.ones((1, 1, 4, 4), np.float64),
        np.ones((1, 1, 4, 4), ">f4"),
        np.ones(3, np.float32),
    ],
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


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert"])
def test_our_runtimes_are_registered_as_entry_points_too(name: str) -> None:
    from importlib.metadata import entry_points

    [entry] = [e for e in entry_points(group="edgeml.runtimes") if e.name == name]
    assert type(runtimes()[name]) is entry.load()


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


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert"])
def test_a_missing_file_is_a_model_error(tmp_path: Path, name: str) -> None:
    missing = tmp_path / "nowhere.onnx"
    with pytest.raises(ModelError, match=rf"{name} cannot load nowhere\.onnx\. There is no file"):
        open_session(name, missing)


@pytest.mark.parametrize("threads", [0, -1, 10**6, "2", True, 1.5])
def test_a_number_of_threads_that_cannot_be_is_refused(threads: int) -> None:
    with pytest.raises(UserError, match=r"cannot have .* threads\. Give a whole number from 1 to"):
        SessionOptions(threads=threads)


def tflite(path: Path) -> Path:
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    return path


def test_a_format_is_known_by_its_content_before_its_suffix(tmp_path: Path) -> None:
    assert format_of(tflite(tmp_path / "m.onnx")) == "tflite"
    assert format_of(tflite(tmp_path / "3f1a")) == "tflite"
    assert format_of(linear(tmp_path / "m.onnx").rename(tmp_path / "3f1b")) == "onnx"
    ir = tmp_path / "m.bin"
    ir.write_text('<?xml version="1.0"?>\n<net name="m" version="11">')
    assert format_of(ir) == "openvino-ir"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("m.onnx", b"no model", "onnx"),
        ("m.TFLITE", b"", "tflite"),
        ("m.xml", b"<html>", "xml"),
        ("m.rknn", b"RKNN", "rknn"),
        ("3f1a", b"who knows", ""),
        ("missing.tflite", None, "tflite"),
    ],
)
def test_a_format_is_known_by_its_suffix_where_its_content_does_not_tell(
    tmp_path: Path, name: str, content: bytes | None, found: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert format_of(tmp_path / name) == found


def test_the_runtimes_for_a_file_are_those_that_load_its_format(tmp_path: Path) -> None:
    assert runtimes_for(linear(tmp_path / "m.onnx")) == ("onnxruntime", "openvino")
    assert runtimes_for(tflite(tmp_path / "m.tflite")) == ("litert",)
    assert runtimes_for(tmp_path / "m.rknn") == ()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_file_of_another_format_names_the_runtime_for_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"cannot run m\.tflite\..*is tflite\. Use .* litert\."):
        open_session(name, tflite(tmp_path / "m.tflite"))


def test_a_file_of_another_format_names_what_to_install_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert, "_PACKAGES", {})
    with pytest.raises(ModelError, match=r"litert can: pip install 'edgeml\[litert\]'\."):
        open_session("onnxruntime", tflite(tmp_path / "m.tflite"))
    with pytest.raises(DeviceError, match=r"litert is not installed\..*pip install 'edgeml"):
        open_session("litert", tflite(tmp_path / "m.tflite"))
    assert runtimes_for(tmp_path / "m.tflite") == ()


def test_a_file_that_no_runtime_knows_is_refused_without_advice(tmp_path: Path) -> None:
    (tmp_path / "m.hef").write_bytes(b"HEF")
    with pytest.raises(ModelError, match=r"litert cannot run m\.hef\. .*this is hef\.$"):
        open_session("litert", tmp_path / "m.hef")


SILENT_PLUGIN = """
from hardware.capabilities import RuntimeInfo
class Made:
    name = "tpu9001"
    def info(self):
        return RuntimeInfo(name=self.name, version="1.0")
    def load(self, model, options):
        return (model.name, options.threads)
make = Made
"""


def test_a_plug_in_that_names_no_formats_may_load_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "edgeml.runtimes", "tpu9001", SILENT_PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    loaded = open_session("tpu9001", tflite(tmp_path / "m.tflite"), SessionOptions(threads=2))
    assert loaded == ("m.tflite", 2)
