"""The test in a child process: whatever happens there is a result."""

import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from cloud_sync.evidence import Verdict, combined
from cloud_sync.golden import GoldenSet, Recorded
from edge_agent.execution import Execution
from edge_agent.golden_replay import compare
from edge_agent.testing import TIMEOUT_S, TestRequest, run_child
from edgeml.errors import ReleaseError
from tests.cloud_sync.releases import PIPELINE, make_release
from tests.edge_agent.processes import descendants


def request(folder: Path, **how: object) -> TestRequest:
    layout, release = make_release(folder, **how)
    variant = release.variants[0]
    path = {f.role: str(layout.blobs.path(f.digest)) for f in variant.files}
    return TestRequest(
        execution=Execution(runtime="onnxruntime", version=version("onnxruntime")),
        model=path["model"],
        pipeline=path["pipeline"],
        golden=path["golden"],
        recorded=path["recorded"],
    )


def test_a_variant_that_computes_what_was_recorded_passes(tmp_path: Path) -> None:
    result = run_child(request(tmp_path), threading.Event())
    assert result is not None
    assert combined(result.gates) is Verdict.PASS
    assert result.golden is not None
    assert result.golden.max_difference == 0.0
    assert result.latency is not None
    assert result.latency.n >= 6
    assert result.memory_bytes > 1 << 20
    assert result.placement == {"CPUExecutionProvider": 2}


def test_one_that_computes_something_else_fails_with_the_difference(tmp_path: Path) -> None:
    result = run_child(request(tmp_path, spoil_recording=True), threading.Event())
    assert result is not None
    assert combined(result.gates) is Verdict.FAIL
    assert result.gates[0].value == pytest.approx(1.0)


@pytest.mark.parametrize("role", ["model", "pipeline", "golden", "recorded"])
def test_a_file_that_cannot_be_used_is_a_failed_test(tmp_path: Path, role: str) -> None:
    wanted = request(tmp_path)
    Path(getattr(wanted, role)).write_bytes(b"nonsense")
    result = run_child(wanted, threading.Event())
    assert result is not None
    assert combined(result.gates) is Verdict.FAIL
    assert result.error


def test_a_test_that_does_not_end_is_a_failed_test(tmp_path: Path) -> None:
    result = run_child(request(tmp_path), threading.Event(), timeout_s=0.05)
    assert result is not None
    assert "did not end" in result.error


def test_a_stop_ends_the_child_at_once(tmp_path: Path) -> None:
    import os

    wanted = request(tmp_path)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    begun = time.monotonic()
    assert run_child(wanted, stop) is None
    assert time.monotonic() - begun < TIMEOUT_S / 2
    assert descendants(os.getpid()) == []


def recorded(outputs: np.ndarray, **more: object) -> Recorded:
    fields = {
        "runtime": "r",
        "runtime_version": "1",
        "instruction_set": "x",
        "tolerance": 0.0,
        "other_tolerance": 0.1,
        "outputs": (outputs,),
    } | more
    return Recorded(**fields)


OUTPUTS = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
GOLDEN = GoldenSet(
    inputs=np.zeros((2, 1, 1), np.uint8), labels=np.array([1, 1]), outputs=(OUTPUTS,)
)


@pytest.mark.parametrize(
    ("version", "difference", "expected"),
    [
        ("1", 0.0, Verdict.PASS),
        ("1", 1e-6, Verdict.FAIL),  # the same runtime must compute the same bits
        ("2", 0.05, Verdict.PASS),  # another one within its stated tolerance
        ("2", 0.5, Verdict.UNDECIDED),  # beyond it two labels say little
        ("2", np.nan, Verdict.FAIL),
        ("1", np.nan, Verdict.FAIL),
    ],
)
def test_the_comparison_with_what_was_recorded(
    version: str, difference: float, expected: Verdict
) -> None:
    ours = (OUTPUTS + np.float32(difference),)
    result, gate = compare(ours, GOLDEN, [recorded(OUTPUTS)], ("r", version, "x"))
    assert gate.result is expected
    assert result.label_accuracy is not None
    assert result.label_accuracy.n == 2


@pytest.mark.parametrize(
    ("samples", "wrong", "expected"),
    [
        (200, 0, Verdict.PASS),
        (100, 0, Verdict.UNDECIDED),
        (200, 2, Verdict.UNDECIDED),
        (200, 12, Verdict.FAIL),
    ],
)
def test_beyond_the_tolerance_for_another_runtime_the_labels_decide(
    samples: int, wrong: int, expected: Verdict
) -> None:
    labels = np.random.default_rng(1).integers(0, 10, samples)
    outputs = np.eye(10, dtype=np.float32)[labels]
    golden = GoldenSet(
        inputs=np.zeros((samples, 1, 1), np.uint8), labels=labels, outputs=(outputs,)
    )
    ours = outputs + np.float32(0.2)
    ours[:wrong] = np.roll(ours[:wrong], 1, axis=1)
    _, gate = compare((ours,), golden, [recorded(outputs)], ("r", "2", "x"))
    assert (gate.name, gate.result) == ("golden.labels", expected)
    assert f"{wrong} of {samples}" in gate.reason
    # The same runtime must compute the same, whatever the labels say.
    _, gate = compare((ours,), golden, [recorded(outputs)], ("r", "1", "x"))
    assert (gate.name, gate.result) == ("golden.outputs", Verdict.FAIL)


def test_without_labels_another_runtime_beyond_its_tolerance_is_undecided() -> None:
    golden = GoldenSet(inputs=GOLDEN.inputs, labels=None, outputs=GOLDEN.outputs)
    _, gate = compare((OUTPUTS + 1,), golden, [recorded(OUTPUTS)], ("r", "2", "x"))
    assert gate.result is Verdict.UNDECIDED


@pytest.mark.parametrize("task", ["detection", "text", "embedding", "anomaly", "raw"])
def test_what_labels_of_classes_do_not_tell_is_undecided(task: str) -> None:
    labels = np.zeros(300, np.int64)
    outputs = np.eye(10, dtype=np.float32)[labels]
    golden = GoldenSet(inputs=np.zeros((300, 1, 1), np.uint8), labels=labels, outputs=(outputs,))
    result, gate = compare(
        (outputs + np.float32(0.2),), golden, [recorded(outputs)], ("r", "2", "x"), task
    )
    assert (gate.name, gate.result) == ("golden.outputs", Verdict.UNDECIDED)
    assert f"what a {task} has lost" in gate.reason
    assert result.label_accuracy is None


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.full(300, 11), "10 scores, which the labels do not name"),
        (np.arange(300) % 9 + 1, "the recording itself hits 0 of 300 labels"),
        (None, "no labels of classes"),
    ],
)
def test_labels_that_are_not_the_outputs_classes_are_not_read(
    labels: np.ndarray | None, why: str
) -> None:
    outputs = np.tile(np.eye(10, dtype=np.float32)[:1], (300, 1))
    golden = GoldenSet(inputs=np.zeros((300, 1, 1), np.uint8), labels=labels, outputs=(outputs,))
    result, gate = compare(
        (outputs + np.float32(0.2),), golden, [recorded(outputs)], ("r", "2", "x"), ""
    )
    assert gate.result is Verdict.UNDECIDED
    assert why in gate.reason
    assert result.label_accuracy is None


def test_the_recording_of_this_very_runtime_goes_before_the_others() -> None:
    other = recorded(OUTPUTS + 9, runtime_version="0")
    result, gate = compare((OUTPUTS,), GOLDEN, [other, recorded(OUTPUTS)], ("r", "1", "x"))
    assert gate.result is Verdict.PASS
    assert result.recorded_for == "r 1 on x"


def test_gateware_gives_the_recorded_bits_on_every_machine() -> None:
    bits = replace(recorded(OUTPUTS), tolerance=0.0, other_tolerance=0.0)
    _, gate = compare((OUTPUTS,), GOLDEN, [bits], ("r", "2", "y"))
    assert gate.result is Verdict.PASS
    _, gate = compare((OUTPUTS + np.float32(1e-6),), GOLDEN, [bits], ("r", "2", "y"))
    assert (gate.name, gate.result) == ("golden.outputs", Verdict.FAIL)


@pytest.mark.parametrize("wrong", [OUTPUTS[:1], OUTPUTS.astype(np.float64)])
def test_outputs_of_another_shape_or_type_are_no_recording_of_this_model(
    wrong: np.ndarray,
) -> None:
    with pytest.raises(ReleaseError, match="do not fit"):
        compare((OUTPUTS,), GOLDEN, [recorded(wrong)], ("r", "1", "x"))


def test_a_pipeline_that_finds_nothing_in_a_golden_input_fails(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    blind = b"version = 1\n" + PIPELINE.replace(b"\nversion = 1\n", b"")
    head, _, tail = blind.partition(b"[[pre]]")
    locate = b'[[pre]]\nop = "locate"\nmin_area = 1.0\n'
    Path(wanted.pipeline).write_bytes(head + locate + b"[[pre]]" + tail)
    result = run_child(wanted, threading.Event())
    assert result is not None
    assert "found nothing" in result.error
