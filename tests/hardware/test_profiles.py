"""Target profiles are found by name, by group, and with help."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.errors import TargetError
from hardware.profiles import is_group, profiles, select
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
        assert profile.int8 in {"u8s8", "u8s8-reduced"}
        assert profile.runtimes
        assert profile.description


def test_the_flavours_of_int8_follow_the_instructions() -> None:
    assert {name: profile.int8 for name, profile in profiles().items()} == {
        "cpu-x86-64": "u8s8-reduced",
        "cpu-x86-64-vnni": "u8s8",
        "cpu-arm64": "u8s8-reduced",
        "cpu-arm64-dotprod": "u8s8",
    }


def test_a_plug_in_adds_targets_and_replaces_none_of_ours(path_of_plugins: Path) -> None:
    install(path_of_plugins, "edgeml.targets", "npu9000", PLUGIN)
    assert select(["npu-9000"])[0].description == "theirs"
    assert select(["cpu-arm64"])[0].description != "theirs"


def test_a_broken_plug_in_is_named(path_of_plugins: Path) -> None:
    install(path_of_plugins, "edgeml.targets", "shattered", "def make(): return [1]")
    with pytest.raises(TargetError, match="plug-in shattered cannot be loaded"):
        profiles()
