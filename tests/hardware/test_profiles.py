"""Target profiles are found by name, by group, and with help."""

import pytest

from edgeml.errors import TargetError
from hardware.profiles import is_group, profiles, select


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
