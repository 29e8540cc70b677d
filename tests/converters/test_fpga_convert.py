"""`edgeml convert` for FPGAs: gateware that gives the integer model's bits, or a refusal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from msgspec.structs import replace
from onnx import helper
from typer.testing import CliRunner

import converters.cli
from cloud_sync.evidence import Evidence, Verdict, Verification
from cloud_sync.release import Layout, resolve
from converters.conversion import convert
from converters.progress import Silent
from converters.result import ConversionResult
from edgeml.errors import ExitCode, ModelError, TargetError, ToolchainError, UserError
from hardware.capabilities import Accelerator, Capabilities, RuntimeInfo
from tests import needs

from .locked_tools import prepared
from .onnx_nets import net

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TARGET = "fpga-ecp5-25k"
CLASSES = 3


@pytest.fixture(scope="module", autouse=True)
def verilator() -> None:
    needs.program("verilator", "verilator")
    needs.program("g++", "g++")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that tells which of three numbers is the largest, and its data."""
    made = tmp_path_factory.mktemp("fpga")
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"], "hidden"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "c"], ["y"], "classify"),
    ]
    both = np.hstack([np.eye(CLASSES), -np.eye(CLASSES)]).astype(np.float32)
    constants = {"a": both, "b": np.full(2 * CLASSES, 0.1, np.float32), "c": both.T.copy()}
    (made / "model.onnx").write_bytes(net(nodes, constants, (CLASSES,)))
    rng = np.random.default_rng(0)
    for name, count in (("calibration", 64), ("evaluation", 400)):
        x = rng.normal(0, 1, (count, CLASSES)).astype(np.float32)
        x[np.arange(count), rng.integers(0, CLASSES, count)] += 3
        np.savez(made / f"{name}.npz", x=x, y=x.argmax(axis=1))
    return made


def run(folder: Path, out: str, **more: Any) -> ConversionResult:
    options: dict[str, Any] = {
        "targets": (TARGET,),
        "max_drop": 0.05,
        "options": {"until": "rtl"},
    } | more
    return convert(
        folder / "model.onnx",
        calibration=folder / "calibration.npz",
        evaluation=folder / "evaluation.npz",
        name="largest",
        version="1",
        out=folder / out,
        **options,
    )


@pytest.fixture(scope="module")
def converted(folder: Path) -> ConversionResult:
    return run(folder, "out")


class _Heard(Silent):
    """Remembers what was done."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, what: str, total: int = 0) -> None:
        del total
        self.steps.append(what)


def record_of(out: Path) -> Evidence:
    layout = Layout.open(out)
    [release] = layout.releases()
    [record] = layout.evidence(release.digest)
    return record


def test_the_engine_gives_the_integer_models_bits_on_the_golden_set(
    folder: Path, converted: ConversionResult
) -> None:
    [variant] = converted.variants
    assert (variant.target, variant.runtime, variant.precision) == (TARGET, "fpga", "int8")
    record = record_of(folder / "out")
    assert record.verification is Verification.RTL_SIMULATED
    gates = {gate.name: gate for gate in record.gates}
    assert gates["rtl"].result is Verdict.PASS
    assert (gates["rtl"].value, gates["rtl"].n) == (0.0, 32)
    assert record.compiled is not None
    assert record.compiled.placement is not None
    assert record.compiled.placement.share == 1.0
    cycles = next(e for e in record.compiled.estimates if e.name == "cycles")
    assert cycles.value > 0
    assert "never on an FPGA" in " ".join(record.compiled.remarks)
    report = (folder / "out" / "report.html").read_text()
    assert "rtl-simulated" in report
    assert "never on an FPGA" in report
    assert report.count('fill="#1f5fa8"') == 2  # layers in the schedule's picture
    found = record.compiled.alternatives
    [chosen] = [each for each in found if each.chosen]
    assert chosen.name == f"engine of {record.compiled.settings['lanes']} lanes"
    assert f"cycles on {record.compiled.settings['lanes']} lanes" in report
    assert chosen.cycles == cycles.value  # the estimate is exact
    fitting = [each for each in found if not each.lacking]
    assert chosen.latency_ms == min(each.latency_ms for each in fitting)
    assert {"engine of 4 lanes", "engine of 16 lanes"} <= {each.name for each in fitting}
    assert all(each.name in report for each in found)
    assert "Ways to build it" in report


def test_a_device_with_that_part_resolves_it_and_others_do_not(
    folder: Path, converted: ConversionResult
) -> None:
    [release] = Layout.open(folder / "out").releases()
    runtimes = (RuntimeInfo(name="fpga", version="2.0"),)
    having = Capabilities(
        runtimes=runtimes, accelerators=(Accelerator(kind="fpga", part="LFE5U-25F"),)
    )
    other = Capabilities(
        runtimes=runtimes, accelerators=(Accelerator(kind="fpga", part="iCE40UP5K"),)
    )
    assert resolve(release, having).variant is not None
    older = replace(having, runtimes=(RuntimeInfo(name="fpga", version="1.0"),))
    assert resolve(release, other).variant is None
    assert resolve(release, older).variant is None  # it speaks to other gateware
    assert converted.exit_code == ExitCode.DONE


def test_a_recipe_gives_the_same_release_again(folder: Path, converted: ConversionResult) -> None:
    again = run(folder, "again", targets=(), options={}, recipe=converted.variants[0].recipe)
    assert again.release == converted.release


def test_what_was_asked_for_is_built_and_what_saves_nothing_is_said(folder: Path) -> None:
    asked = {"architecture": "engine", "lanes": "4", "bits": "search", "latency_ms": "5"}
    run(folder, "asked", options={"until": "rtl"} | asked)
    compiled = record_of(folder / "asked").compiled
    assert compiled is not None
    assert [each.name for each in compiled.alternatives] == ["engine of 4 lanes"]
    assert "bits=search saves nothing" in " ".join(compiled.remarks)
    assert compiled.settings["latency_ms"] == "5.0"


def test_what_does_not_fit_is_refused_with_an_estimate(folder: Path) -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(0, 0.1, (CLASSES, 30_000)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["h"]),
        helper.make_node("Gemm", ["h", "c"], ["y"]),
    ]
    model = net(nodes, {"a": wide, "c": wide.T.copy()}, (CLASSES,))
    large = folder / "large"
    large.mkdir()
    (large / "model.onnx").write_bytes(model)
    for name in ("calibration", "evaluation"):
        (large / f"{name}.npz").write_bytes((folder / f"{name}.npz").read_bytes())
    heard = _Heard()
    with pytest.raises(TargetError, match="does not fit") as caught:
        run(large, "out", targets=("fpga-ice40-up5k",), progress=heard)
    assert not any("valuat" in step for step in heard.steps), "refused before the model is run"
    assert "The nearest, engine of 4 lanes, weights in flash" in caught.value.why
    assert "bytes of weights" in caught.value.why
    assert "Unrolled into logic it would take" in caught.value.why
    assert not (large / "out").exists()


def test_an_operator_that_gateware_has_not_is_refused_by_its_name(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    model = net([helper.make_node("Erf", ["x"], ["y"], "bend")], {}, (CLASSES,))
    (other / "model.onnx").write_bytes(model)
    for name in ("calibration", "evaluation"):
        (other / f"{name}.npz").write_bytes((folder / f"{name}.npz").read_bytes())
    with pytest.raises(ModelError, match=r"operator Erf \(bend\) cannot be computed on an FPGA"):
        run(other, "out")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"speed": "9"}, "no option speed"),
        ({"until": "silicon"}, "one of rtl, netlist, bitstream"),
        ({"architecture": "analog"}, "one of auto, engine, dataflow"),
        ({"clock_mhz": "-3"}, "no number above 0"),
        ({"lanes": "many"}, "one of auto, 4, 8, 16, 32"),
        ({"lanes": "5"}, "one of auto, 4, 8, 16, 32"),
        ({"weights": "cloud"}, "one of auto, chip, flash"),
        ({"weights": "flash"}, "cannot have weights in a flash"),
        ({"share": "1.5"}, "more than all of the FPGA"),
        ({"latency_ms": "0"}, "no number above 0"),
        ({"clock_mhz": "nan"}, "no number above 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(
    folder: Path, option: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run(folder, "out-of-range", options=option)


@pytest.mark.parametrize(
    ("board", "said"), [("icebreaker", "another FPGA than the target"), ("mine", "no board mine")]
)
def test_a_board_that_has_not_the_targets_fpga_is_refused(
    folder: Path, board: str, said: str
) -> None:
    with pytest.raises(TargetError, match=said):
        run(folder, "other-board", options={"until": "rtl", "board": board})


@pytest.mark.parametrize(
    ("option", "tool"),
    [
        ({"until": "netlist"}, "toolchain install fpga-open"),
        ({"until": "rtl", "architecture": "dataflow"}, "toolchain install da4ml"),
    ],
)
def test_a_missing_toolchain_is_said_with_its_command_before_the_model_is_read(
    folder: Path, option: dict[str, str], tool: str
) -> None:
    with pytest.raises(ToolchainError) as caught:
        run(folder, "no-tools", options=option)
    assert tool in caught.value.fix


def test_a_missing_simulator_is_said_with_its_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ToolchainError, match="no program verilator") as caught:
        run(folder, "no-simulator")
    assert "apt-get install verilator" in caught.value.fix


def test_the_command_has_options_for_architecture_and_how_far(folder: Path) -> None:
    app = typer.Typer()
    app.command()(converters.cli.convert)
    command = [str(folder / "model.onnx"), "--target", TARGET]
    command += ["--calibration", str(folder / "calibration.npz")]
    command += ["--evaluate", str(folder / "evaluation.npz")]
    command += ["--name", "largest", "--version", "1", "--out", str(folder / "by-command")]
    for option in (["--until", "silicon"], ["--architecture", "analog"]):
        said = CliRunner().invoke(app, [*command, *option])
        assert isinstance(said.exception, UserError)
        assert f"{option[0][2:]}={option[1]}" in said.exception.what


def test_a_small_net_is_unrolled_where_nobody_says_otherwise(
    folder: Path, kept_toolchains: Path
) -> None:
    assert prepared("da4ml").folder.is_relative_to(kept_toolchains)
    result = run(folder, "dataflow")
    [variant] = result.variants
    assert variant.runtime == "fpga"
    record = record_of(folder / "dataflow")
    assert {g.name: g.result for g in record.gates} == dict.fromkeys(
        ("accuracy", "rtl"), Verdict.PASS
    )
    assert record.compiled is not None
    assert "not synthesised" in " ".join(record.compiled.remarks)
    assert record.compiled.settings["architecture"] == "dataflow"
    assert record.compiled.settings["powers_of_two"] == "True"
    assert {e.source for e in record.compiled.estimates if e.name == "luts"} == {"da4ml's estimate"}
