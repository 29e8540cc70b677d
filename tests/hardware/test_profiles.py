"""Target profiles are found by name, by group, and with help."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.errors import TargetError
from hardware.capabilities import Capabilities, Cpu, RuntimeInfo
from hardware.profiles import is_group, profiles, select
from hardware.requirements import runtime_fits, unmet
from tests.hardware.plugins import install

PLUGIN = """
from hardware.profiles import TargetProfile
def make():
    for name in ("npu-9000", "cpu-arm64"):
        yield TargetProfile(name=name, description="theirs", architecture="arm64", int8="s8s8")
"""


@pytest.fixture
def path_of_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    profiles.cache_clear()
    yield tmp_path
    profiles.cache_clear()


def test_the_group_cpu_means_every_cpu_target() -> None:
    names = [profile.name for profile in select(["cpu"])]
    assert names == ["cpu-arm64", "cpu-arm64-dotprod", "cpu-x86-64", "cpu-x86-64-vnni"]
    assert is_group("cpu")
    assert not is_group("cpu-arm64")


def test_a_target_named_twice_is_selected_once() -> None:
    assert [p.name for p in select(["cpu-arm64", "cpu-arm64"])] == ["cpu-arm64"]


def test_an_unknown_target_is_an_error_that_names_the_near_ones() -> None:
    with pytest.raises(TargetError, match=r"Did you mean .*cpu-x86-64"):
        select(["cpu-x86"])


def test_every_profile_says_how_it_is_quantized_and_run() -> None:
    for profile in profiles().values():
        assert profile.backend or profile.int8 in {"u8s8", "u8s8-reduced"}
        assert profile.runtimes
        assert profile.description


def test_the_flavours_of_int8_follow_the_instructions() -> None:
    assert {name: p.int8 for name, p in profiles().items() if not p.backend} == {
        "cpu-x86-64": "u8s8-reduced",
        "cpu-x86-64-vnni": "u8s8",
        "cpu-arm64": "u8s8",
        "cpu-arm64-dotprod": "u8s8",
    }


NEEDED = {
    "amd64": ("avx2", "avx512_vnni"),
    "arm64": ("asimd", "asimddp"),
}


def device(architecture: str, *installed: str) -> Capabilities:
    return Capabilities(
        architecture=architecture,
        cpu=Cpu(features=NEEDED[architecture]),
        runtimes=tuple(
            RuntimeInfo(name=name, version=version)
            for name, _, version in (text.partition(" ") for text in installed)
        ),
    )


@pytest.mark.parametrize(
    "name", ["cpu-x86-64", "cpu-x86-64-vnni", "cpu-arm64", "cpu-arm64-dotprod"]
)
def test_each_of_our_targets_names_three_runtimes_any_one_of_which_suffices(name: str) -> None:
    [profile] = select([name])
    assert [r.name for r in profile.runtimes] == ["onnxruntime", "openvino", "litert"]
    needs = profile.requirements()
    for installed in ("onnxruntime 1.31.1", "openvino 2026.4.1", "litert 2.14.0+tflite.runtime"):
        assert not unmet(needs, device(profile.architecture, installed))
    assert "the device has no runtime" in unmet(needs, device(profile.architecture))[0]


def test_a_variant_is_for_the_runtimes_that_can_run_it_alone() -> None:
    [profile] = select(["cpu-arm64"])
    needs = profile.requirements(runtimes=("openvino", "onnxruntime"))
    assert [r.name for r in needs.runtimes] == ["onnxruntime", "openvino"]
    assert not unmet(needs, device("arm64", "litert 2.3.0", "openvino 2026.4.1"))
    [reason] = unmet(needs, device("arm64", "litert 2.3.0"))
    assert reason == "needs onnxruntime>=1.17 or openvino>=2024.6, the device has litert 2.3.0"


def test_a_variant_that_no_runtime_of_the_target_runs_is_no_variant_for_every_device() -> None:
    [profile] = select(["cpu-arm64"])
    with pytest.raises(TargetError, match="cpu-arm64 runs nothing on rknn"):
        profile.requirements(runtimes=("rknn",))


def test_a_runtime_too_old_for_the_target_does_not_fit() -> None:
    for needs in select(["cpu-x86-64"])[0].runtimes:
        assert not runtime_fits(needs, device("amd64", f"{needs.name} 0.9"))


def test_a_plug_in_adds_targets_and_replaces_none_of_ours(path_of_plugins: Path) -> None:
    install(path_of_plugins, "edgeml.targets", "npu9000", PLUGIN)
    assert select(["npu-9000"])[0].description == "theirs"
    assert select(["cpu-arm64"])[0].description != "theirs"


def test_a_broken_plug_in_is_named(path_of_plugins: Path) -> None:
    install(path_of_plugins, "edgeml.targets", "shattered", "def make(): return [1]")
    with pytest.raises(TargetError, match="plug-in shattered cannot be loaded"):
        profiles()
