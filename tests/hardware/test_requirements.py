"""What a variant needs against what a device has."""

import pytest

from hardware.capabilities import Accelerator, Capabilities, Cpu, RuntimeInfo
from hardware.requirements import (
    AcceleratorRequirement,
    Requirements,
    RuntimeRequirement,
    unmet,
)

DEVICE = Capabilities(
    cpu=Cpu(features=("avx2", "avx_vnni")),
    memory_bytes=1000,
    runtimes=(RuntimeInfo(name="onnxruntime", version="1.31.1", providers=("CPU",)),),
    accelerators=(Accelerator(kind="npu", part="u55-128"),),
)


def runtime(versions: str, provider: str = "") -> Requirements:
    needed = RuntimeRequirement(name="onnxruntime", versions=versions, provider=provider)
    return Requirements(runtimes=(needed,))


@pytest.mark.parametrize(
    "needs",
    [
        Requirements(),
        Requirements(cpu_features=("avx2", "avx512_vnni|avx_vnni")),
        Requirements(memory_bytes=1000),
        Requirements(accelerator=AcceleratorRequirement(kind="npu", part="u55-128")),
        runtime(">=1.17,<2"),
        runtime("", provider="CPU"),
    ],
)
def test_met_needs_give_no_reason(needs: Requirements) -> None:
    assert unmet(needs, DEVICE) == ()


@pytest.mark.parametrize(
    ("needs", "word"),
    [
        (Requirements(architecture="arm64"), "arm64"),
        (Requirements(os="windows"), "windows"),
        (Requirements(cpu_features=("avx512_vnni",)), "avx512_vnni"),
        (Requirements(memory_bytes=1001), "memory"),
        (Requirements(accelerator=AcceleratorRequirement(kind="npu", part="u85")), "u85"),
        (runtime(">=2"), "onnxruntime"),
        (runtime("what is this"), "onnxruntime"),
        (runtime("", provider="CUDA"), "onnxruntime"),
    ],
)
def test_an_unmet_need_is_named(needs: Requirements, word: str) -> None:
    [reason] = unmet(needs, DEVICE)
    assert word in reason


def test_unknown_memory_rules_nothing_out() -> None:
    assert unmet(Requirements(memory_bytes=10**12), Capabilities(memory_bytes=0)) == ()


def npu(**changes: str) -> Capabilities:
    accelerator = Accelerator(
        **{
            "kind": "npu",
            "part": "hexagon-qcs8550",
            "architecture": "hexagon-v73",
            "driver": "rknpu 0.9.8",
            "firmware": "1.2.3",
            **changes,
        }
    )
    return Capabilities(accelerators=(accelerator,))


@pytest.mark.parametrize(
    ("needs", "device", "reasons"),
    [
        ({"part": "hexagon-v73"}, npu(), ()),
        ({"part": "hexagon-v68|hexagon-v73"}, npu(), ()),
        ({"part": "hexagon-qcs8550", "driver": ">=0.9.2", "firmware": "<2"}, npu(), ()),
        (
            {"part": "hexagon-v68"},
            npu(),
            ("needs the accelerator npu hexagon-v68, the device has hexagon-qcs8550 hexagon-v73",),
        ),
        (
            {"part": "hexagon-v73", "driver": ">=1.0"},
            npu(),
            ("needs the driver>=1.0 of hexagon-qcs8550, the device has rknpu 0.9.8",),
        ),
        (
            {"part": "hexagon-v73", "firmware": ">=2"},
            npu(firmware=""),
            ("needs the firmware>=2 of hexagon-qcs8550, the device has none that tells a version",),
        ),
    ],
)
def test_an_accelerator_is_met_by_part_or_architecture_and_its_versions(
    needs: dict[str, str], device: Capabilities, reasons: tuple[str, ...]
) -> None:
    wanted = Requirements(accelerator=AcceleratorRequirement(kind="npu", **needs))
    assert unmet(wanted, device) == reasons


def test_of_several_accelerators_one_that_meets_all_will_do() -> None:
    two = (*npu(driver="rknpu 0.8.0").accelerators, *npu().accelerators)
    part = AcceleratorRequirement(kind="npu", part="hexagon-v73", driver=">=0.9.2")
    assert unmet(Requirements(accelerator=part), Capabilities(accelerators=two)) == ()


def test_a_missing_provider_is_named_with_what_the_runtime_has() -> None:
    [reason] = unmet(runtime("", provider="NPU"), DEVICE)
    assert reason == "needs onnxruntime with NPU, the device has onnxruntime 1.31.1 with CPU"
