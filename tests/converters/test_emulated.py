"""Candidates on the instructions of another processor: what holds there, and what is said."""

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.golden import decode_recorded
from cloud_sync.release import Layout
from converters import emulated
from converters.conversion import convert
from converters.emulated import Emulated, no_speed
from converters.toolchains import emulation
from edgeml.errors import ExitCode
from hardware.probes import probe
from hardware.profiles import select

from .test_cli import convert_arguments, invoke
from .test_emulation import prepare

NATIVE = GateResult(name="accuracy", result=Verdict.PASS, reason="Nothing was lost.")
ARM = emulation.cpu_for("arm64", select(["cpu-arm64"])[0].cpu_features)
VNNI = {"avx512_vnni", "avx_vnni"} & set(probe().cpu.features)


def test_equal_bits_on_all_samples_carry_the_gate_of_this_machine_over() -> None:
    found = Emulated(cpu="Haswell", n=400, of=400, equal=400)
    gate = found.gate(NATIVE)
    assert gate.result is Verdict.PASS
    said = "Nothing was lost. Emulated Haswell gave the same bits on all 400 samples."
    assert gate.reason == said
    assert found.differ_at_most == 0


@pytest.mark.parametrize(("n", "percent"), [(48, "6.1"), (300, "1.0"), (1000, "0.3")])
def test_equal_bits_on_some_samples_say_how_many_others_may_differ(n: int, percent: str) -> None:
    found = Emulated(cpu="Haswell", n=n, of=5000, equal=n)
    gate = found.gate(NATIVE)
    assert gate.result is Verdict.PASS
    assert f"on {n} samples, evenly taken of 5000: " in gate.reason
    assert gate.reason.endswith(f"at 95 % confidence it gives other ones on at most {percent} %.")
    assert (1 - found.differ_at_most) ** n == pytest.approx(0.05)  # what would still be unseen


def test_other_bits_are_judged_by_what_was_answered_there() -> None:
    there = GateResult(name="accuracy", result=Verdict.FAIL, reason="Much was lost.")
    gate = Emulated(cpu="Haswell", n=48, of=60, equal=3, accuracy=there).gate(NATIVE)
    assert gate.result is Verdict.FAIL
    assert "other bits on 45 of 48 samples" in gate.reason
    assert "Much was lost." in gate.reason


def test_an_emulators_times_decide_nothing() -> None:
    gate = no_speed("cortex-a53", 1.1)
    assert (gate.result, gate.bound, gate.value) == (Verdict.UNDECIDED, 1.1, None)


@pytest.fixture(scope="module")
def arm(kept_toolchains: Path) -> Path:
    prepare("arm64")
    return kept_toolchains


def for_target(
    target: str, model: Path, data: tuple[Path, Path], out: Path, *more: str
) -> tuple[int, Any]:
    options = ("--target", target, "--min-speedup", "0", "--json", *more)
    code, stdout, _ = invoke(*convert_arguments(model, data, out, *options))
    return code, json.loads(stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates from x86-64")
def test_int8_for_arm_waits_for_a_device_to_tell_its_speed_or_for_a_person_to_accept(
    arm: Path, convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    assert arm.is_dir()
    code, body = for_target("cpu-arm64", convnet, quarters_data, tmp_path / "doubted")
    assert code == body["exit_code"] == ExitCode.GATE_UNDECIDED
    assert {v["precision"] for v in body["variants"]} == {"float32"}
    said = "cpu-arm64: the speed of int8 is undecided: no such processor is here"
    assert body["float_kept_because"].startswith(said)
    left = next(c for c in body["left_out"] if c["precision"] == "int8")
    accuracy, speed = left["gates"][:2]
    assert (accuracy["name"], accuracy["result"], accuracy["n"]) == ("accuracy", "pass", 400)
    assert f"Emulated {ARM}" in accuracy["reason"]
    assert (speed["name"], speed["result"], speed["value"]) == ("speedup", "undecided", None)
    assert left["undecided"]
    assert left["remedy"].startswith("Convert on such a machine, or deploy it all the same")
    accept = ("--accept-undecided", "a pilot on one line")
    code, body = for_target("cpu-arm64", convnet, quarters_data, tmp_path / "accepted", *accept)
    assert (code, body["exit_code"]) == (0, 0)
    best = body["variants"][0]
    assert (best["precision"], best["verification"]) == ("int8", "artifact-executed-emulated")
    assert body["float_kept_because"] is None
    kept = Layout.open(tmp_path / "accepted").evidence(body["release"])
    assert "a pilot on one line" in {record.accepted for record in kept}


@pytest.fixture(scope="module")
def haswell(kept_toolchains: Path) -> Path:
    prepare("amd64")
    return kept_toolchains


@pytest.mark.slow
@pytest.mark.skipif(not VNNI, reason="this machine has no VNNI, so nothing has to be emulated")
def test_a_target_without_vnni_is_executed_on_its_own_instructions(
    haswell: Path, convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    assert haswell.is_dir()
    result = convert(
        convnet,
        calibration=quarters_data[0],
        evaluation=quarters_data[1],
        name="toy",
        version="1",
        out=tmp_path / "out",
        targets=("cpu-x86-64",),
        runtimes=("onnxruntime",),
        min_speedup=0.0,
    )
    assert {v.verification for v in result.variants} == {"artifact-executed-emulated"}
    quantized = next(v for v in result.variants if v.precision == "int8")
    assert "Emulated Haswell gave the same bits on all 400 samples." in quantized.gates[0].reason
    layout = Layout.open(result.path)
    for variant in layout.release().variants:
        blob = layout.blobs.path(variant.file("recorded").digest)
        here, there = decode_recorded(blob.read_bytes())
        assert (here.tolerance, there.tolerance > 0) == (0.0, True)
        assert there.instruction_set == "x86-64-avx2"
        np.testing.assert_allclose(there.outputs[0], here.outputs[0], atol=there.tolerance)


@pytest.mark.slow
@pytest.mark.skipif(not VNNI, reason="this machine has no VNNI, so nothing has to be emulated")
def test_where_time_allows_a_part_only_it_says_how_many_of_the_others_may_differ(
    haswell: Path,
    convnet: Path,
    quarters_data: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert haswell.is_dir()
    monkeypatch.setattr(emulated, "_EQUAL_SECONDS", 0.0)
    monkeypatch.setattr(emulated, "_ENOUGH_EQUAL", 20)
    code, body = for_target(
        "cpu-x86-64", convnet, quarters_data, tmp_path / "out", "--runtime", "onnxruntime"
    )
    assert code == ExitCode.DONE
    quantized = next(v for v in body["variants"] if v["precision"] == "int8")
    said = "Emulated Haswell gave the same bits on 20 samples, evenly taken of 400: at 95 %"
    assert said in quantized["gates"][0]["reason"]
