"""OpenVINO gives what onnxruntime gives, from ONNX and from its own format."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeml.errors import DeviceError, ModelError
from hardware.runtimes import SessionOptions, open_session
from hardware.runtimes.openvino import _openvino, _read
from tests.hardware.models import linear

MODELS = ["cifar_resnet20", "cifar_resnet8", "kws_dscnn", "mnist_lstm", "ppocr_rec", "yunet"]


def one_node(
    path: Path, operator: str, shape: tuple, *, out: tuple = ("N", 3), **more: list[int]
) -> Path:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *more], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [onnx.numpy_helper.from_array(np.array(value), name) for name, value in more.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def save_ir(model: Path, folder: Path) -> Path:
    ov = _openvino()
    ov.save_model(_read(ov, model), folder / "net.xml", compress_to_fp16=False)
    return folder / "net.xml"


@pytest.mark.parametrize("name", MODELS)
def test_real_models_give_what_onnxruntime_gives(
    name: str, shared_models: Path, samples: Callable[..., np.ndarray]
) -> None:
    model, sample = shared_models / name / "float.onnx", samples(name)
    theirs, ours = (open_session(runtime, model) for runtime in ("openvino", "onnxruntime"))
    assert [spec.name for spec in theirs.inputs] == [spec.name for spec in ours.inputs]
    assert [spec.name for spec in theirs.outputs] == [spec.name for spec in ours.outputs]
    assert [spec.dtype for spec in theirs.outputs] == [spec.dtype for spec in ours.outputs]
    for given, wanted in zip(theirs.run([sample]), ours.run([sample]), strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4)


def test_a_free_axis_takes_any_length_and_outputs_outlive_the_next_run(
    shared_models: Path, samples: Callable[..., np.ndarray]
) -> None:
    session = open_session("openvino", shared_models / "kws_dscnn" / "float.onnx")
    assert session.inputs[0].shape == ("axis0", 49, 10, 1)
    three = samples("kws_dscnn", 3)
    [alone] = session.run([three[:1]])
    kept = alone.copy()
    [together] = session.run([three])
    assert together.shape == (3, 12)
    np.testing.assert_array_equal(alone, kept)
    np.testing.assert_allclose(together[:1], kept, atol=1e-6)
    assert session.run([three[:2]])[0].shape == (2, 12)


def test_an_input_is_only_read_even_where_it_is_read_only_or_strided(tmp_path: Path) -> None:
    session = open_session("openvino", one_node(tmp_path / "m.onnx", "Relu", ("N", 3)))
    tensor = np.array([[-1, 2, -3]], np.float32)
    [wanted] = [output.copy() for output in session.run([tensor])]
    np.testing.assert_array_equal(tensor, [[-1, 2, -3]])
    tensor.flags.writeable = False
    strided = np.array([[-1, 0, 2, 0, -3, 0]], np.float32)[:, ::2]
    for other in (tensor, strided):
        np.testing.assert_array_equal(session.run([other])[0], wanted)


def test_an_ir_is_loaded_with_its_weights_beside_it(
    tmp_path: Path, shared_models: Path, samples: Callable[..., np.ndarray]
) -> None:
    model, sample = shared_models / "kws_dscnn" / "float.onnx", samples("kws_dscnn")
    [wanted] = open_session("openvino", model).run([sample])
    ir = save_ir(model, tmp_path)
    np.testing.assert_array_equal(open_session("openvino", ir).run([sample])[0], wanted)


def test_an_ir_without_its_weights_is_told_what_is_missing(
    tmp_path: Path, shared_models: Path
) -> None:
    ir = save_ir(shared_models / "kws_dscnn" / "float.onnx", tmp_path)
    ir.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"bin file cannot be found.* \.bin beside its \.xml"):
        open_session("openvino", ir)


def test_a_model_without_a_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    blob = linear(tmp_path / "m.onnx").rename(tmp_path / "3f1a")
    assert open_session("openvino", blob).inputs[0].name == "image"


@pytest.mark.parametrize("threads", [1, 2])
def test_what_goes_wrong_in_a_run_is_said_and_the_next_run_works(
    tmp_path: Path, threads: int
) -> None:
    model = one_node(tmp_path / "m.onnx", "Reshape", ("N", 3), out=("M", 2), to=[-1, 2])
    session = open_session("openvino", model, SessionOptions(threads=threads))
    for _ in range(3):
        with pytest.raises(ModelError, match=r"failed on an input\. .*conflicts with the reshape"):
            session.run([np.ones((1, 3), np.float32)])
        assert session.run([np.ones((2, 3), np.float32)])[0].shape == (3, 2)


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
    session = open_session("openvino", linear(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"wants image float32\[axis0, 1, 4, 4\], it was given"):
        session.run([wrong])


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07" * 5])
def test_a_broken_file_is_a_model_error_of_one_line_and_no_noise(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"openvino cannot load broken\.onnx") as caught:
        open_session("openvino", path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_model_cut_off_is_a_model_error(tmp_path: Path, shared_models: Path) -> None:
    whole = (shared_models / "kws_dscnn" / "float.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cannot load cut\.onnx\. Model can't be parsed\."):
        open_session("openvino", path)


def test_an_operator_that_openvino_has_not_got_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="operations: Frobnicate"):
        open_session("openvino", one_node(tmp_path / "m.onnx", "Frobnicate", ("N", 3)))


def test_an_input_of_unknown_rank_is_refused(tmp_path: Path) -> None:
    graph = onnx.load(one_node(tmp_path / "m.onnx", "Relu", ("N", 3)))
    graph.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(graph, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="dynamic rank"):
        open_session("openvino", tmp_path / "m.onnx")


def test_a_device_that_is_not_there_is_no_silent_fall_back(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"openvino has no provider TPU here\. It has CPU"):
        open_session("openvino", linear(tmp_path / "m.onnx"), SessionOptions(provider="TPU"))


def test_the_placement_counts_the_nodes_that_work(tmp_path: Path) -> None:
    session = open_session("openvino", one_node(tmp_path / "m.onnx", "Relu", ("N", 3)))
    assert session.placement() == {"CPU": 1}


def run_apart(code: str, model: Path, home: Path, path: str = "") -> str:
    environment = {k: v for k, v in os.environ.items() if k != "CI"}
    environment |= {"HOME": str(home), "PYTHONPATH": path}
    command = [sys.executable, "-c", code, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_nothing_reports_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from hardware.runtimes import open_session;"
        "open_session('openvino', Path(sys.argv[1]));"
        "print([m for m in sys.modules if 'telemetry' in m])"
    )
    assert run_apart(code, linear(tmp_path / "m.onnx"), home) == "[]"
    assert list(home.iterdir()) == []


def test_an_installation_that_does_not_load_is_a_device_error(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "openvino.py").write_text("raise ImportError('libtbb.so.12: no file')")
    code = (
        "import sys; from pathlib import Path; from hardware.runtimes import open_session\n"
        "from edgeml.errors import DeviceError\n"
        "try: open_session('openvino', Path(sys.argv[1]))\n"
        "except DeviceError as error: print(error)"
    )
    said = run_apart(code, linear(tmp_path / "m.onnx"), tmp_path, str(tmp_path / "broken"))
    assert said.startswith("The runtime openvino does not load. libtbb.so.12: no file.")
