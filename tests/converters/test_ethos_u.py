"""The project's own digits model, made for Ethos-U by the real tools."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from cloud_sync.evidence import Verification
from cloud_sync.golden import decode_recorded
from cloud_sync.release import Layout
from converters.backends.ethos_u.backend import TOOLCHAIN, EthosU
from converters.conversion import convert
from converters.result import ConversionResult
from converters.toolchains.doctor import examine
from converters.toolchains.exchange import ask
from edgeml.errors import DeviceError, ExitCode, GateFailed, ModelError, UserError
from examples.digits.make_data import write
from hardware.profiles import select
from hardware.runtimes import format_of, open_session

from .conftest import quarters, save_data, write_convnet
from .locked_tools import named_log, prepared
from .notes import Notes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
TARGETS = ("npu-ethos-u55-128", "npu-ethos-u85-256")


@pytest.fixture(scope="module", autouse=True)
def tools(kept_toolchains: Path) -> None:
    """What an Ethos-U needs."""
    for name in ("onnx2tf", "ai-edge-quantizer", TOOLCHAIN):
        prepared(name)


@pytest.fixture(scope="module")
def made(tools: None, tmp_path_factory: pytest.TempPathFactory) -> ConversionResult:
    folder = tmp_path_factory.mktemp("ethos-u")
    calibration, evaluation = fewer(*write(folder / "whole"), folder / "data")
    return convert(
        DIGITS / "digits.onnx",
        calibration=calibration,
        evaluation=evaluation,
        pipeline=DIGITS / "pipeline.toml",
        name="digits",
        version="1.0.0",
        out=folder / "release",
        targets=TARGETS,
        max_drop=0.02,
    )


def fewer(calibration: Path, evaluation: Path, into: Path) -> tuple[Path, Path]:
    """As many samples as two points take to be shown."""
    into.mkdir()
    for path, count in ((calibration, 64), (evaluation, 500)):
        with np.load(path) as arrays:
            np.savez(into / path.name, **{name: arrays[name][:count] for name in arrays})
    return into / calibration.name, into / evaluation.name


def test_every_target_has_an_int8_variant_that_is_shown_to_keep_the_metric(
    made: ConversionResult,
) -> None:
    assert [(v.target, v.precision, v.runtime) for v in made.variants] == [
        (target, "int8", "ethosu") for target in TARGETS
    ]
    assert made.exit_code == ExitCode.DONE
    for variant in made.variants:
        accuracy, placement = variant.gates
        assert (accuracy.name, accuracy.result) == ("accuracy", "pass")
        assert (placement.name, placement.value) == ("placement", 1.0)
        assert variant.verification == Verification.PRE_COMPILE_EXECUTED


def test_what_vela_expects_is_an_estimate_and_no_latency(made: ConversionResult) -> None:
    small, large = (variant.compiled for variant in made.variants)
    assert small is not None
    assert large is not None
    cycles = [
        next(e.value for e in report.estimates if e.name == "cycles") for report in (small, large)
    ]
    assert cycles[0] > cycles[1] > 0
    assert all(e.source == "Vela 5.2.0" for e in small.estimates)
    assert small.placement is not None
    assert small.placement.offloaded_macs == small.placement.macs > 0
    assert all(variant.latency is None for variant in made.variants)
    report = (made.path / "report.html").read_text()
    assert "Estimated by Vela 5.2.0, not measured" in report
    assert "the file that was compiled was run, not this one" in report


def test_the_file_is_velas_and_needs_the_npu_that_it_was_made_for(made: ConversionResult) -> None:
    layout = Layout.open(made.path)
    [release] = layout.releases()
    for variant, target in zip(release.variants, TARGETS, strict=True):
        path = layout.blobs.path(variant.file("model").digest)
        assert format_of(path) == variant.format == "vela"
        assert variant.requires.accelerator is not None
        assert variant.requires.accelerator.part == target.removeprefix("npu-")
        with pytest.raises((DeviceError, ModelError), match="ethos-u"):
            open_session("ethosu", path)


def test_the_logs_of_all_compilers_are_in_the_evidence_and_beside_the_report(
    made: ConversionResult,
) -> None:
    wanted = [f"{t}-{n}.log" for t in TARGETS for n in ("ai-edge-quantizer", "onnx2tf", "vela")]
    logs = {path.name: path.read_text() for path in (made.path / "logs").iterdir()}
    assert sorted(logs) == sorted(wanted)
    assert "Network summary" in logs[f"{TARGETS[0]}-vela.log"]
    assert "Running Calibration" in logs[f"{TARGETS[0]}-ai-edge-quantizer.log"]
    layout = Layout.open(made.path)
    index = layout.blobs.path(made.evidence).read_text()
    assert all(name in index for name in wanted)


def test_the_reference_kernels_answers_are_recorded(made: ConversionResult) -> None:
    layout = Layout.open(made.path)
    variant = layout.releases()[0].variants[0]
    [recorded] = decode_recorded(layout.blobs.path(variant.file("recorded").digest).read_bytes())
    assert recorded.runtime == "litert"
    assert recorded.instruction_set == "reference kernels"
    assert np.isfinite(recorded.outputs[0]).all()


def test_the_recipe_says_what_vela_was_told_and_replays_bit_for_bit(
    made: ConversionResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_CACHE", "")  # all is made anew
    data = made.path.parent / "data"
    again = convert(
        DIGITS / "digits.onnx",
        calibration=next(data.glob("calibration*")),
        evaluation=next(data.glob("evaluation*")),
        pipeline=DIGITS / "pipeline.toml",
        name="digits",
        version="1.0.0",
        out=tmp_path / "again",
        recipe=made.variants[0].recipe,
        max_drop=0.02,
    )
    assert again.release == made.release
    text = made.variants[0].recipe.read_text()
    assert '"system-config": "Ethos_U55_High_End_Embedded"' in text
    assert '"ethos-u-vela": "5.2.0"' in text


def test_what_vela_refuses_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes((DIGITS / "digits.onnx").read_bytes())
    reply = ask(
        prepared(TOOLCHAIN),
        {
            "model": str(tmp_path / "model.tflite"),
            "output": str(tmp_path / "out.tflite"),
            "accelerator": "ethos-u55-128",
            "system-config": "Ethos_U55_High_End_Embedded",
            "memory-mode": "Shared_Sram",
        },
    )
    assert reply["refused"]
    assert "Traceback" not in reply["refused"]
    assert not (tmp_path / "out.tflite").exists()
    said = named_log(reply["log"])
    assert "Traceback" in said  # Vela's own words, all of them
    assert said.endswith(f"It refused: {reply['refused']}\n")


def test_an_option_that_vela_has_not_is_refused(tmp_path: Path) -> None:
    model = write_convnet(tmp_path / "convnet.onnx")
    calibration, evaluation = save_data(tmp_path, quarters, evaluation=40)
    with pytest.raises(UserError, match="no option system_config"):
        convert(
            model,
            calibration=calibration,
            evaluation=evaluation,
            name="quarters",
            version="1",
            out=tmp_path / "release",
            targets=TARGETS[:1],
            options={"system_config": "Ethos_U65_High_End"},
        )


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("system-config", "Ethos_U65_High", "Ethos_U55_Deep_Embedded, Ethos_U55_High_End_Embedded"),
        ("memory-mode", "Shared", "Sram_Only, Shared_Sram, Dedicated_Sram"),
    ],
)
def test_a_configuration_that_vela_has_not_is_told_with_those_that_it_has(
    option: str, value: str, known: str
) -> None:
    [target] = select(TARGETS[:1])
    with pytest.raises(UserError, match=f"{option}={value} cannot be used") as refused:
        EthosU().check(target, {option: value})
    assert f"vela.ini has: {known}" in refused.value.why
    EthosU().check(target, {name: str(target.settings[name]) for name in EthosU.options})


def test_the_toolchain_is_healthy() -> None:
    diagnosis = examine(TOOLCHAIN)
    assert diagnosis.healthy
    assert diagnosis.checked["version"] == "5.2.0"


def test_a_node_that_stays_on_the_cpu_is_named_beforehand_and_fails_the_gate(
    tmp_path: Path,
) -> None:
    model = write_convnet(tmp_path / "convnet.onnx")
    proto = onnx.load(model)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type = "Sin"
    onnx.save(proto, model)
    calibration, evaluation = save_data(tmp_path, quarters, evaluation=100)
    notes = Notes()
    with pytest.raises(GateFailed, match="lower --min-offload") as failed:
        convert(
            model,
            calibration=calibration,
            evaluation=evaluation,
            name="quarters",
            version="1",
            out=tmp_path / "release",
            targets=TARGETS[:1],
            max_drop=0.5,
            progress=notes,
        )
    expected = "Not expected to run on npu-ethos-u55-128: relu (Sin): this operator is not among"
    assert expected in "".join(notes.told)
    assert "(SIN): it computes in float32" in failed.value.why
