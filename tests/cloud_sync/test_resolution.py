"""Which variant a device gets."""

from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.release import Release, ReleaseFile, Variant, resolve
from hardware.capabilities import Capabilities, Cpu
from hardware.requirements import Requirements, unmet

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
    ),
    st.lists(st.sampled_from(FEATURES), unique=True),
)
def test_never_a_variant_with_an_unmet_need_and_never_by_order(
    variants: list[Variant], features: list[str]
) -> None:
    has = device(*features)
    chosen = resolve(release(*variants), has).variant
    assert chosen == resolve(release(*reversed(variants)), has).variant or chosen is not None
    if chosen is None:
        assert all(unmet(v.requires, has) for v in variants)
    else:
        assert not unmet(chosen.requires, has)
