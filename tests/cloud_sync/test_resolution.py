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


def compiled(target: str, part: str, driver: str = "") -> Variant:
    requires = Requirements(
        architecture="arm64",
        runtimes=(RuntimeRequirement(name="rknn", versions=">=2.5", provider="rknpu"),),
        accelerator=AcceleratorRequirement(kind="npu", part=part, driver=driver),
    )
    return replace(variant(target), requires=requires)


def board(runtime: str = "2.5.0", driver: str = "rknpu 0.9.8") -> Capabilities:
    return Capabilities(
        architecture="arm64",
        runtimes=(RuntimeInfo(name="rknn", version=runtime, providers=("rknpu",)),),
        accelerators=(Accelerator(kind="npu", part="rk3588-npu", driver=driver),),
    )


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (
            board(runtime="1.6.0"),
            "needs rknn>=2.5 with rknpu, the device has rknn 1.6.0 with rknpu",
        ),
        (
            board(driver="rknpu 0.8.8"),
            "needs the driver>=0.9.2 of rk3588-npu, the device has rknpu 0.8.8",
        ),
        (
            board(driver="rknpu"),
            "needs the driver>=0.9.2 of rk3588-npu, the device has rknpu",
        ),
    ],
)
def test_what_an_npu_lacks_is_told_in_the_plan_and_not_when_the_file_is_loaded(
    device: Capabilities, reason: str
) -> None:
    """As "Invalid model version 6" is what an old librknnrt.so would say, on the device."""
    npu = compiled("npu-rockchip-rk", "rk3588-npu", ">=0.9.2")
    assert resolve(release(npu), board()).variant == npu
    found = resolve(release(npu), device)
    assert found.variant is None
    assert [r.reasons for r in found.rejected] == [(reason,)]
    assert reason in found.reason


def test_an_npus_variant_comes_before_the_cpus_where_its_needs_are_met() -> None:
    npu = compiled("npu-rockchip-rk", "rk3588-npu")
    both = release(variant("cpu", 0, "arm64"), npu)
    assert resolve(both, board()).variant == npu
    chosen = resolve(both, board(runtime="1.6.0")).variant
    assert chosen is not None
    assert chosen.target == "cpu"
