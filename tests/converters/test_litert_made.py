"""What LiteRT executes, made with its toolchains: from ONNX, and from a float `.tflite` file."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from cloud_sync.evidence import Verdict
from cloud_sync.release import Layout
from converters.conversion import convert
from converters.model import load_model
from converters.progress import Silent
from converters.result import ConversionResult
from edgeml.errors import ModelError
from hardware.runtimes import open_session

from .locked_tools import prepared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Notes(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, what: str) -> None:
        self.told.append(what)


def run(model: Path, data: tuple[Path, Path], out: Path, **more: object) -> ConversionResult:
    options = {"targets": ("cpu",), "max_drop": 0.05, "min_speedup": 0.0} | more
    if "recipe" in more:
        del options["targets"]
    return convert(
        model,
        calibration=data[0],
        evaluation=data[1],
        name="quarters",
        version="1",
        out=out,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(autouse=True)
def tools(kept_toolchains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those two: nothing is emulated."""
    home = tmp_path / "toolchains"
    home.mkdir()
    for name in ("onnx2tf", "ai-edge-quantizer"):
        prepared(name)
        (home / name).symlink_to(kept_toolchains / name)
    monkeypatch.setenv("EDGEML_TOOLCHAINS", str(home))


def test_an_onnx_model_becomes_an_int8_file_for_litert_and_its_recipe_replays_bit_for_bit(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    made = run(convnet, quarters_data, tmp_path / "out", runtimes=("litert",))
    assert {(v.runtime, v.format) for v in made.variants} == {("litert", "tflite")}
    best = next(v for v in made.variants if v.precision == "int8")
    gates = {gate.name: gate.result for gate in best.gates}
    assert gates["accuracy"] is Verdict.PASS
    assert gates["conversion"] is Verdict.PASS  # float on litert beside float on onnxruntime
    floats = next(v for v in made.variants if v.precision == "float32")
    assert (floats.format, floats.bytes > best.bytes) == ("tflite", True)

    (release,) = Layout.open(made.path).releases()
    assert {v.file("model").path for v in release.variants} == {"model.tflite"}
    session = open_session("litert", best.file)  # a blob, as a device has it: without a suffix
    assert [str(spec) for spec in session.inputs] == ["image float32[1, 1, 12, 12]"]
    assert [spec.dtype for spec in session.outputs] == ["float32"]

    again = run(convnet, quarters_data, tmp_path / "again", recipe=best.recipe)
    assert again.release == made.release


def test_a_float_tflite_file_is_a_model_like_others(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    first = run(convnet, quarters_data, tmp_path / "first", runtimes=("litert",))
    source = tmp_path / "model.tflite"
    floats = next(v for v in first.variants if v.precision == "float32")
    source.write_bytes(floats.file.read_bytes())
    made = run(source, quarters_data, tmp_path / "out")
    assert {v.runtime for v in made.variants} == {"litert"}
    assert {v.precision for v in made.variants} == {"int8", "float32"}
    assert next(v for v in made.variants if v.precision == "float32").digest
    assert load_model(source).digest == made_from(made)
    again = run(source, quarters_data, tmp_path / "again", recipe=made.variants[0].recipe)
    assert again.release == made.release


def test_litert_races_beside_the_others_where_its_tools_are_installed(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    made = run(convnet, quarters_data, tmp_path / "out")
    assert {"onnxruntime", "litert"} <= {v.runtime for v in made.variants}
    assert {v.format for v in made.variants} == {"onnx", "tflite"}


def test_what_onnx2tf_cannot_convert_is_an_error_if_asked_for_and_else_left_out(
    tmp_path: Path,
) -> None:
    model, data = write_determinant(tmp_path)
    with pytest.raises(ModelError, match="ONNX_DET"):
        run(model, data, tmp_path / "out", runtimes=("onnxruntime", "litert"))
    notes = Notes()
    made = run(model, data, tmp_path / "out", progress=notes)
    assert "litert" not in {v.runtime for v in made.variants}
    assert any(n.startswith("litert is left out") and "ONNX_DET" in n for n in notes.told)


def made_from(result: ConversionResult) -> str:
    from converters.recipe import read_recipe

    copy = result.path / "recipe.json"
    copy.write_bytes(result.variants[0].recipe.read_bytes())
    return read_recipe(copy).inputs.model


def write_determinant(folder: Path) -> tuple[Path, tuple[Path, Path]]:
    """Whether a matrix turns or mirrors: an operator that LiteRT has not."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    constants = {
        "w": np.eye(4, dtype=np.float32),
        "ends": np.array([[-1.0, 1.0]], np.float32),
        "column": np.array([-1, 1]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
            helper.make_node("Det", ["m"], ["d"], name="determinant"),
            helper.make_node("Reshape", ["d", "column"], ["c"], name="column"),
            helper.make_node("Mul", ["c", "ends"], ["y"], name="scores"),
        ],
        "net",
        [helper.make_tensor_value_info("x", kind, ["N", 4, 4])],
        [helper.make_tensor_value_info("y", kind, ["N", 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    rng = np.random.default_rng(0)
    for name, count in (("calibration", 16), ("evaluation", 80)):
        x = rng.normal(size=(count, 4, 4)).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=x, y=(np.linalg.det(x) > 0).astype(int))
    return folder / "net.onnx", (folder / "calibration.npz", folder / "evaluation.npz")
