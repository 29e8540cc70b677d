"""Candidates on the instructions of another processor: what holds there, and what is said."""

from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.golden import decode_recorded
from cloud_sync.release import Layout
from converters.conversion import convert
from converters.emulated import Emulated, no_speed
from hardware.probes import probe

from .test_emulation import prepare

NATIVE = GateResult(name="accuracy", result=Verdict.PASS, reason="Nothing was lost.")
VNNI = {"avx512_vnni", "avx_vnni"} & set(probe().cpu.features)


def test_equal_bits_carry_the_gate_of_this_machine_over() -> None:
    found = Emulated(cpu="Haswell", n=48, equal=48)
    gate = found.gate(NATIVE)
    assert gate.result is Verdict.PASS
    assert gate.reason == "Nothing was lost. Emulated Haswell gave the same bits on 48 samples."


def test_other_bits_are_judged_by_what_was_answered_there() -> None:
    there = GateResult(name="accuracy", result=Verdict.FAIL, reason="Much was lost.")
    gate = Emulated(cpu="Haswell", n=48, equal=3, accuracy=there).gate(NATIVE)
    assert gate.result is Verdict.FAIL
    assert "other bits on 45 of 48 samples" in gate.reason
    assert "Much was lost." in gate.reason


def test_an_emulators_times_decide_nothing() -> None:
    gate = no_speed("cortex-a53", 1.1)
    assert (gate.result, gate.bound, gate.value) == (Verdict.UNDECIDED, 1.1, None)


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
    assert "Emulated Haswell" in quantized.gates[0].reason
    layout = Layout.open(result.path)
    for variant in layout.release().variants:
        blob = layout.blobs.path(variant.file("recorded").digest)
        here, there = decode_recorded(blob.read_bytes())
        assert (here.tolerance, there.tolerance > 0) == (0.0, True)
        assert there.instruction_set == "x86-64-avx2"
        np.testing.assert_allclose(there.outputs[0], here.outputs[0], atol=there.tolerance)
