"""LiteRT where its toolchains are missing, and which runtimes take which format."""

from pathlib import Path

import numpy as np
import pytest

from converters.conversion import convert
from converters.plan import plan
from edgeml.errors import ExitCode, TargetError, ToolchainError
from hardware.capabilities import Capabilities, Cpu, RuntimeInfo

HERE = Capabilities(
    cpu=Cpu(features=("avx2",)),
    runtimes=tuple(RuntimeInfo(name=n, version="2.1") for n in ("onnxruntime", "litert")),
)


def test_litert_asked_for_without_onnx2tf_says_what_to_install(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ToolchainError, match="edgeml toolchain install onnx2tf") as caught:
        convert(
            convnet,
            calibration=quarters_data[0],
            evaluation=quarters_data[1],
            name="quarters",
            version="1",
            out=tmp_path / "out",
            targets=("cpu",),
            runtimes=("litert",),
        )
    assert caught.value.exit_code == 5
    assert not (tmp_path / "out").exists()


def test_a_tflite_file_without_the_quantizer_stays_float_and_says_why(
    shared_models: Path, tmp_path: Path
) -> None:
    folder = shared_models / "cifar_resnet8"
    for split in ("calibration", "dev"):
        with np.load(folder / f"{split}.npz") as arrays:
            labels = {"y": arrays["y"]} if "y" in arrays else {}
            np.savez(tmp_path / f"{split}.npz", x=arrays["x"].astype(np.float32), **labels)
    made = convert(
        folder / "float.tflite",
        calibration=tmp_path / "calibration.npz",
        evaluation=tmp_path / "dev.npz",
        name="resnet",
        version="1",
        out=tmp_path / "out",
        targets=("cpu",),
    )
    assert {(v.runtime, v.precision) for v in made.variants} == {("litert", "float32")}
    assert "edgeml toolchain install ai-edge-quantizer" in str(made.float_kept_because)
    assert made.exit_code is ExitCode.TOOLCHAIN_MISSING
    assert (made.path / "index.json").is_file()


def test_only_runtimes_that_take_the_format_race() -> None:
    assert plan(["cpu-x86-64"], HERE).all_runtimes == ("onnxruntime",)
    planned = plan(["cpu-x86-64"], HERE, model_format="tflite")
    assert planned.all_runtimes == ("litert",)
    assert planned.format_on("litert") == "tflite"
    bare = Capabilities(cpu=HERE.cpu, runtimes=HERE.runtimes[:1])
    with pytest.raises(TargetError, match="runs tflite files on none of the runtimes here"):
        plan(["cpu-x86-64"], bare, model_format="tflite")


def test_a_recipe_with_litert_needs_its_converter() -> None:
    with pytest.raises(ToolchainError, match="onnx2tf is not installed"):
        plan(["cpu-x86-64"], HERE, decided={"onnxruntime", "litert"})
    assert plan(["cpu-x86-64"], HERE, decided={"onnxruntime"}).all_runtimes == ("onnxruntime",)
