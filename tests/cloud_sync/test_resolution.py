"""Which variant a device gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cloud_sync.release import Release, ReleaseFile, Variant, resolve
from hardware.capabilities import Accelerator, Capabilities, Cpu, RuntimeInfo
from hardware.requirements import (
    AcceleratorRequirement,
    Requirements,
    RuntimeRequirement,
    unmet,
)

FEATURES = ("avx2", "avx512_vnni", "asimd")


def variant(name: str, rank: int = 0, architecture: str = "amd64", *features: str) -> Variant:
    return Variant(
        digest=f"sha256:{name}",
        size=1,
        target=name.rstrip("0123456789"),
        rank=rank,
        requires=Requirements(architecture=architecture, cpu_features=features),
        format="onnx",
        precision="int8",
        quantization="",
        verification="",
        files=(ReleaseFile(role="model", path="m", media_type="", digest="", size=1),),
    )


def release(*variants: Variant) -> Release:
    return Release(model="m", version="1", digest="sha256:r", size=1, variants=variants)


def device(*features: str, architecture: str = "amd64") -> Capabilities:
    return Capabilities(architecture=architecture, cpu=Cpu(features=features))


PLAIN = variant("plain")
VNNI = variant("vnni", 0, "amd64", "avx2", "avx512_vnni")
SLOW_VNNI = variant("vnni2", 1, "amd64", "avx2", "avx512_vnni")
ARM = variant("arm", 0, "arm64", "asimd")


def test_the_most_demanding_target_that_fits_wins_then_its_best_rank() -> None:
    chosen = resolve(release(SLOW_VNNI, ARM, PLAIN, VNNI), device("avx2", "avx512_vnni"))
    assert chosen.variant == VNNI
    assert [r.digest for r in chosen.rejected] == [ARM.digest]


def test_a_device_that_lacks_a_feature_gets_the_plain_one() -> None:
    assert resolve(release(VNNI, PLAIN), device("avx2")).variant == PLAIN


def test_a_device_that_nothing_fits_is_told_why_for_each() -> None:
    found = resolve(release(VNNI, ARM), device())
    assert found.variant is None
    assert "avx512_vnni" in found.reason
    assert "arm64" in found.reason


@given(
    st.lists(
        st.builds(
            lambda i, rank, arch, features: variant(f"t{i}", rank, arch, *features),
            st.integers(0, 9),
            st.integers(0, 3),
            st.sampled_from(["amd64", "arm64"]),
            st.lists(st.sampled_from(FEATURES), unique=True),
        ),
        max_size=6,
        unique_by=lambda variant: variant.digest,
    ),
    st.lists(st.sampled_from(FEATURES), unique=True),
)
def test_never_a_variant_with_an_unmet_need_and_never_by_order(
    variants: list[Variant], features: list[str]
) -> None:
    has = device(*features)
    found = resolve(release(*variants), has)
    again = resolve(release(*reversed(variants)), has)
    fitting = [v for v in variants if not unmet(v.requires, has)]
    assert found.variant == again.variant
    assert {r.digest for r in found.rejected} == {v.digest for v in variants if v not in fitting}
    assert all(r.reasons for r in found.rejected)
    if found.variant is None:
        assert not fitting
    else:
        assert found.variant in fitting
        wants = [len(v.requires.cpu_features) for v in fitting]
        assert len(found.variant.requires.cpu_features) == max(wants)


ONNX = RuntimeRequirement(name="onnxruntime", versions=">=1.17,<2")
HAS = Capabilities(
    cpu=Cpu(features=("avx2",)),
    memory_bytes=1000,
    runtimes=(RuntimeInfo(name="onnxruntime", version="1.20.1", providers=("CPU",)),),
    accelerators=(Accelerator(kind="npu", part="ethos-u55-128"),),
)


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (Requirements(), ""),
        (Requirements(runtimes=(ONNX,)), ""),
        (Requirements(cpu_features=("avx512_vnni|avx2",)), ""),
        (Requirements(memory_bytes=1000), ""),
        (Requirements(accelerator=AcceleratorRequirement(kind="npu", part="ethos-u55-128")), ""),
        (Requirements(os="qnx"), "needs qnx"),
        (Requirements(architecture="arm64"), "needs arm64"),
        (Requirements(cpu_features=("amx",)), "CPU feature amx"),
        (Requirements(memory_bytes=1001), "1001 bytes of memory"),
        (Requirements(runtimes=(replace(ONNX, versions=">=1.21"),)), "has onnxruntime 1.20.1"),
        (Requirements(runtimes=(replace(ONNX, provider="CUDA"),)), "needs onnxruntime"),
        (Requirements(runtimes=(replace(ONNX, name="litert"),)), "needs litert"),
        (Requirements(accelerator=AcceleratorRequirement(kind="npu", part="x")), "npu x"),
    ],
)
def test_each_need_alone_decides(needs: Requirements, reason: str) -> None:
    one = replace(PLAIN, requires=needs)
    found = resolve(release(one), HAS)
    assert found.variant == (None if reason else one)
    assert reason in found.reason


def test_a_compiled_accelerator_comes_before_any_cpu() -> None:
    npu = replace(
        variant("npu"),
        requires=Requirements(accelerator=AcceleratorRequirement(kind="npu", part="ethos-u55-128")),
    )
    assert resolve(release(variant("cpu", 0, "amd64", "avx2"), npu), HAS).variant == npu
