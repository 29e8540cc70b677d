"""The exit code says whether doubt alone made float32 the answer."""

from pathlib import Path
from typing import Any

import pytest

from cloud_sync.evidence import Accuracy, GateResult, Verdict
from converters.decide import choose
from converters.emulated import no_speed
from converters.result import ConversionResult, LeftOut, VariantResult
from converters.show import conversion_text
from edgeml.errors import ExitCode


def variant(target: str, precision: str) -> VariantResult:
    return VariantResult(
        target=target,
        runtime="onnxruntime",
        file=Path("model.onnx"),
        format="onnx",
        precision=precision,
        quantization="" if precision == "float32" else "dynamic",
        bytes=1000,
        verification="artifact-executed-emulated",
        recipe=Path("recipe.json"),
        digest="sha256:0",
        rank=0,
        accuracy=Accuracy(metric="top1", value=0.9, low=0.8, high=1.0, confidence=0.95, n=9),
        latency=None,
        memory_bytes=0,
        load_ms=0.0,
    )


def left_out(target: str, *gates: GateResult) -> LeftOut:
    choice = choose(gates)
    return LeftOut(
        target=target,
        precision="int8",
        reason=choice.reason,
        undecided=choice.undecided,
        remedy=choice.remedy,
        gates=gates,
    )


def result(*variants: VariantResult, left: tuple[LeftOut, ...] = (), **more: Any
) -> ConversionResult:  # fmt: skip
    return ConversionResult(
        release="sha256:1",
        evidence="sha256:2",
        path=Path("out"),
        model="toy",
        version="1",
        variants=variants,
        left_out=left,
        **more,
    )


PASSED = GateResult(name="accuracy", result=Verdict.PASS, reason="Nothing was lost.")
FAILED = GateResult(name="speedup", result=Verdict.FAIL, value=0.9, reason="Slow.")
NEVER_TIMED = no_speed("cortex-a53", 1.1)


def test_a_speed_that_was_only_emulated_is_undecided_and_says_what_to_do() -> None:
    made = result(
        variant("cpu-arm64", "float32"), left=(left_out("cpu-arm64", PASSED, NEVER_TIMED),)
    )
    assert made.exit_code is ExitCode.GATE_UNDECIDED
    assert made.summary()["exit_code"] == 4
    text = conversion_text(made)
    assert "undecided for cpu-arm64: Convert on such a machine, or deploy it all the same" in text
    assert '--accept-undecided "REASON"' in text


@pytest.mark.parametrize(
    ("served", "gates", "code"),
    [
        ("int8", (PASSED, NEVER_TIMED), ExitCode.DONE),
        ("float32", (PASSED, NEVER_TIMED), ExitCode.GATE_UNDECIDED),
        ("float32", (PASSED, FAILED), ExitCode.DONE),
        ("float32", (FAILED, NEVER_TIMED), ExitCode.DONE),
    ],
)
def test_only_doubt_that_made_float_the_answer_counts(
    served: str, gates: tuple[GateResult, ...], code: ExitCode
) -> None:
    made = result(variant("a", "int8"), variant("b", served), left=(left_out("b", *gates),))
    assert made.exit_code is code
