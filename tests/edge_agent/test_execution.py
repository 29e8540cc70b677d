"""What may run a variant here, and what a race makes of it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cloud_sync.evidence import Latency, Raced, Verdict, Verification
from cloud_sync.release import Variant
from edge_agent.execution import (
    Execution,
    executions,
    following,
    placement_gate,
    thread_counts,
    verification,
    winner,
)
from edgeml.errors import ModelError
from hardware.capabilities import Capabilities, RuntimeInfo
from hardware.requirements import AcceleratorRequirement, Requirements, RuntimeRequirement


def variant(*runtimes: RuntimeRequirement) -> Variant:
    return Variant(
        digest="sha256:v",
        size=1,
        target="cpu",
        rank=0,
        requires=Requirements(runtimes=runtimes),
        format="onnx",
        precision="float32",
        quantization="",
        verification="artifact-executed",
        files=(),
    )


def device(**versions: str) -> Capabilities:
    return Capabilities(
        runtimes=tuple(
            RuntimeInfo(name=name, version=version, providers=("CPU",))
            for name, version in versions.items()
        )
    )


ORT = RuntimeRequirement(name="onnxruntime", versions=">=1.17,<2")
OPENVINO = RuntimeRequirement(name="openvino", versions=">=2025")


def test_every_installed_runtime_of_the_variant_may_run_it_in_the_variants_order() -> None:
    found = executions(
        variant(OPENVINO, ORT), device(onnxruntime="1.20", openvino="2025.1"), cpus=2
    )
    assert [(e.runtime, e.version, e.threads) for e in found] == [
        ("openvino", "2025.1", 1),
        ("openvino", "2025.1", 2),
        ("onnxruntime", "1.20", 1),
        ("onnxruntime", "1.20", 2),
    ]


def test_a_runtime_whose_version_is_out_of_range_is_passed_over() -> None:
    found = executions(
        variant(OPENVINO, ORT), device(onnxruntime="1.20", openvino="2024.6"), cpus=1
    )
    assert [e.runtime for e in found] == ["onnxruntime"]
    with pytest.raises(ModelError, match=r"wants openvino>=2025, here is openvino 2024\.6"):
        executions(variant(OPENVINO), device(openvino="2024.6"), cpus=1)


def test_a_provider_that_the_runtime_has_not_got_is_passed_over() -> None:
    npu = RuntimeRequirement(name="onnxruntime", provider="NPU")
    with pytest.raises(ModelError):
        executions(variant(npu), device(onnxruntime="1.20"), cpus=1)


def test_a_number_of_threads_that_was_set_by_hand_is_the_only_one() -> None:
    found = executions(variant(ORT), device(onnxruntime="1.20"), cpus=4, threads=3)
    assert [e.threads for e in found] == [3]


@given(st.integers(0, 300))
def test_thread_counts_are_powers_of_two_within_the_cores(cpus: int) -> None:
    counts = thread_counts(cpus)
    assert counts[0] == 1
    assert all(b == 2 * a for a, b in itertools.pairwise(counts))
    assert counts[-1] <= max(1, min(cpus, 8))


def ran(runtime: str, threads: int, p50: float | None, result: Verdict = Verdict.PASS) -> Raced:
    latency = None if p50 is None else Latency(p50_ms=p50, p95_ms=p50, p99_ms=p50, n=50)
    return Raced(runtime=runtime, threads=threads, result=result, latency=latency)


CANDIDATES = tuple(
    Execution(runtime=runtime, threads=threads) for runtime in ("a", "b") for threads in (1, 2, 4)
)


@pytest.mark.parametrize(
    ("raced", "then"),
    [
        ([], ("a", 1)),
        ([ran("a", 1, 8.0)], ("a", 2)),
        ([ran("a", 1, 8.0), ran("a", 2, 4.5)], ("a", 4)),
        ([ran("a", 1, 8.0), ran("a", 2, 7.9)], ("b", 1)),  # two threads brought nothing
        ([ran("a", 1, 0.2)], ("b", 1)),  # too small for more than one
        ([ran("a", 1, None, Verdict.FAIL)], ("b", 1)),
        ([ran("a", 1, 0.2), ran("b", 1, 0.2)], None),
    ],
)
def test_more_threads_are_raced_while_they_bring_something(
    raced: list[Raced], then: tuple[str, int] | None
) -> None:
    found = following(CANDIDATES, raced)
    assert (found and (found.runtime, found.threads)) == then


@pytest.mark.parametrize(
    ("raced", "index"),
    [
        ([ran("a", 1, 5.0), ran("b", 1, 2.0)], 1),
        ([ran("a", 1, 5.0), ran("b", 1, 4.9)], 0),  # about as quick: the variant's own order
        ([ran("a", 1, 5.0), ran("b", 1, 1.0, Verdict.FAIL)], 0),
        ([ran("a", 1, 1.0, Verdict.UNDECIDED), ran("b", 1, 5.0)], 1),
        ([ran("a", 1, None, Verdict.FAIL), ran("b", 1, None, Verdict.FAIL)], 0),
    ],
)
def test_the_clearly_quickest_of_those_that_compute_what_was_proven_wins(
    raced: list[Raced], index: int
) -> None:
    assert winner(raced) == index


VERDICTS = st.sampled_from(list(Verdict))


@given(st.lists(st.tuples(st.floats(0.01, 100.0), VERDICTS), min_size=1, max_size=9))
def test_a_failed_one_never_wins_over_one_that_did_not(found: list[tuple[float, Verdict]]) -> None:
    raced = [ran("a", index + 1, p50, verdict) for index, (p50, verdict) in enumerate(found)]
    best = raced[winner(raced)]
    verdicts = {r.result for r in raced}
    assert best.result is next(v for v in Verdict.__members__.values() if v in verdicts) or (
        best.result is Verdict.UNDECIDED and Verdict.PASS not in verdicts
    )
    alike = [r.latency.p50_ms for r in raced if r.result is best.result and r.latency]
    assert best.latency is not None
    assert best.latency.p50_ms <= min(alike) / 0.9 ** len(alike)


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ({"NPU": 40}, Verdict.PASS),
        ({"NPU": 39, "CPU": 1}, Verdict.UNDECIDED),
        ({"CPU": 40}, Verdict.FAIL),
        ({}, Verdict.FAIL),
    ],
)
def test_a_model_that_the_accelerator_left_to_the_cpu_does_not_pass(
    placement: dict[str, int], expected: Verdict
) -> None:
    gate = placement_gate(Execution(runtime="r", provider="NPU"), placement)
    assert gate is not None
    assert gate.result is expected
    assert placement_gate(Execution(runtime="r"), placement) is None


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("simulated FPGA", Verification.RTL_SIMULATED),
        ("serial:/dev/ttyUSB0", Verification.DEVICE_EXECUTED),
    ],
)
def test_a_simulated_fpga_never_says_that_a_device_executed_it(
    way: str, expected: Verification
) -> None:
    info = RuntimeInfo(name="fpga", version="1.0", providers=(way,))
    both = Capabilities(runtimes=(info, *device(onnxruntime="1.20").runtimes))
    assert verification(Execution(runtime="fpga"), both) is expected
    assert verification(Execution(runtime="onnxruntime"), both) is Verification.DEVICE_EXECUTED


def test_gateware_is_not_raced_with_more_threads() -> None:
    on_fpga = variant(RuntimeRequirement(name="fpga"))
    needs = replace(on_fpga.requires, accelerator=AcceleratorRequirement(kind="fpga", part="25F"))
    found = executions(replace(on_fpga, requires=needs), device(fpga="1.0"), cpus=4)
    assert [e.threads for e in found] == [1]
