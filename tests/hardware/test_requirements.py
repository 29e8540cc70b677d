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
