"""LiteRT runs TFLite files as they are: integers in and out, no state from one to the next."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError, ModelError
from hardware.runtimes import Quantization, SessionOptions, litert, open_session, runtimes
from tests.hardware.plugins import install


def test_a_float_model_gives_what_onnxruntime_gives_on_any_batch(
    shared_models: Path, samples: Callable[..., np.ndarray]
) -> None:
    folder = shared_models / "cifar_resnet8"
    theirs = open_session("litert", folder / "float.tflite")
    ours = open_session("onnxruntime", folder / "float.onnx")
    assert str(theirs.inputs[0]) == "input_1 float32[axis0, 32, 32, 3]"
    assert str(theirs.outputs[0]) == "Identity float32[axis0, 10]"
    for count in (1, 3, 2):
        images = samples("cifar_resnet8", count)
        np.testing.assert_allclose(theirs.run([images])[0], ours.run([images])[0], atol=1e-5)


def test_an_integer_model_takes_and_gives_integers_and_says_what_they_mean(
    shared_models: Path,
) -> None:
    session = open_session("litert", shared_models / "kws_dscnn" / "int8_ref.tflite")
    assert session.inputs[0].dtype == session.outputs[0].dtype == "int8"
    assert session.inputs[0].quantization == Quantization(scale=0.5847029089927673, zero_point=83)
    assert session.outputs[0].quantization == Quantization(scale=1 / 256, zero_point=-128)
    with np.load(shared_models / "kws_dscnn" / "dev.npz") as data:
        [scores] = session.run([data["x"]])
        right = float(np.mean(scores.argmax(1) == data["y"]))
    assert scores.dtype == np.int8
    assert right == pytest.approx(
        0.8970, abs=0.0026
    )  # one sample of 398, another kernel's rounding


def test_a_float_model_has_no_quantization(shared_models: Path) -> None:
    session = open_session("litert", shared_models / "kws_dscnn" / "hybrid.tflite")
    assert session.inputs[0].quantization is None


def test_the_state_of_a_recurrent_model_does_not_outlive_an_inference(
    shared_models: Path, samples: Callable[..., np.ndarray]
) -> None:
    folder = shared_models / "mnist_lstm"
    session = open_session("litert", folder / "float.tflite")
    reference = open_session("onnxruntime", folder / "float.onnx")
    for image in samples("mnist_lstm", 20)[:, None]:
        np.testing.assert_allclose(session.run([image])[0], reference.run([image])[0], atol=1e-5)


def test_outputs_outlive_the_next_run(
    shared_models: Path, samples: Callable[..., np.ndarray]
) -> None:
    session = open_session("litert", shared_models / "mnist_lstm" / "float.tflite")
    first, second = samples("mnist_lstm", 2)[:, None]
    [output] = session.run([first])
    kept = output.copy()
    assert not np.array_equal(session.run([second])[0], kept)
    np.testing.assert_array_equal(output, kept)


def test_the_placement_tells_what_xnnpack_took_over(shared_models: Path) -> None:
    folder = shared_models / "mnist_lstm"
    assert open_session("litert", folder / "float.tflite").placement() == {
        "XNNPACK": 3,
        "builtin": 1,  # the LSTM
    }


def test_builtin_kernels_run_without_xnnpack(
    shared_models: Path, samples: Callable[..., np.ndarray]
) -> None:
    model = shared_models / "cifar_resnet8" / "float.tflite"
    plain = open_session("litert", model, SessionOptions(provider="builtin"))
    quick = open_session("litert", model, SessionOptions(provider="XNNPACK"))
    assert plain.placement() == {"builtin": 16}
    assert quick.placement() == {"XNNPACK": 16}
    image = samples("cifar_resnet8")
    np.testing.assert_allclose(plain.run([image])[0], quick.run([image])[0], atol=1e-5)


def test_one_thread_and_two_give_the_same(
    shared_models: Path, samples: Callable[..., np.ndarray]
) -> None:
    model, image = shared_models / "kws_dscnn" / "hybrid.tflite", samples("kws_dscnn")
    one, two = (
        open_session("litert", model, SessionOptions(threads=threads)).run([image])[0]
        for threads in (1, 2)
    )
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((1, 28, 29), np.float32),
        np.ones((2, 28, 28), np.float32),
        np.ones((1, 28, 28), np.float64),
        np.ones((1, 28, 28), ">f4"),
        np.ones(3, np.float32),
    ],
)
def test_an_input_that_does_not_fit_is_refused_and_the_next_run_works(
    shared_models: Path, samples: Callable[..., np.ndarray], wrong: np.ndarray
) -> None:
    session = open_session("litert", shared_models / "mnist_lstm" / "float.tflite")
    with pytest.raises(ModelError, match=r"_input:0 float32\[1, 28, 28\], it was given"):
        session.run([wrong])
    assert session.run([samples("mnist_lstm")])[0].shape == (1, 10)


@pytest.mark.parametrize("kept", [0, 4, 100, 20000])
def test_a_file_cut_off_is_a_model_error_of_one_line(
    tmp_path: Path, shared_models: Path, kept: int
) -> None:
    whole = (shared_models / "kws_dscnn" / "int8_ref.tflite").read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(whole[:kept])
    with pytest.raises(ModelError, match=r"litert cannot load cut\.tflite") as caught:
        open_session("litert", path)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_model_errors_or_run(tmp_path: Path, shared_models: Path) -> None:
    whole = (shared_models / "kws_dscnn" / "hybrid.tflite").read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "damaged.tflite"
    refused = 0
    for _ in range(30):
        damaged = bytearray(whole)
        for place in rng.integers(0, 4000, 10):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            open_session("litert", path).placement()
        except ModelError:
            refused += 1
    assert refused > 0


def test_a_provider_that_is_not_there_is_refused(shared_models: Path) -> None:
    with pytest.raises(DeviceError, match=r"litert has no provider EdgeTPU here\. It has XNNPACK"):
        open_session(
            "litert",
            shared_models / "kws_dscnn" / "hybrid.tflite",
            SessionOptions(provider="EdgeTPU"),
        )


def test_tflite_runtime_serves_where_it_alone_is_installed_and_its_version_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shared_models: Path,
    samples: Callable[..., np.ndarray],
) -> None:
    install(tmp_path, "edgeml.none", "none", "")
    [metadata] = tmp_path.glob("*.dist-info/METADATA")
    metadata.write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")
    metadata.parent.rename(tmp_path / "tflite_runtime-2.14.0.dist-info")
    (tmp_path / "tflite_runtime").mkdir()
    module = tmp_path / "tflite_runtime" / "interpreter.py"
    module.write_text("from ai_edge_litert.interpreter import Interpreter, OpResolverType\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(litert._PACKAGES, "ai-edge-litert")
    info = runtimes()["litert"].info()
    assert info is not None
    assert info.version == "2.14.0+tflite.runtime"
    session = open_session("litert", shared_models / "kws_dscnn" / "hybrid.tflite")
    assert session.run([samples("kws_dscnn")])[0].shape == (1, 12)
