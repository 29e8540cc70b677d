"""A group leaves out what cannot be executed here; a target named exactly must be."""

import pytest

from converters.plan import plan
from edgeml.errors import TargetError
from hardware.capabilities import Capabilities, Cpu, RuntimeInfo
from hardware.profiles import TargetProfile
from hardware.requirements import RuntimeRequirement

ORT = (RuntimeInfo(name="onnxruntime", version="1.31.1"),)
PLAIN = Capabilities(cpu=Cpu(features=("avx2",)), runtimes=ORT)
VNNI = Capabilities(cpu=Cpu(features=("avx2", "avx512_vnni")), runtimes=ORT)
ARM = Capabilities(architecture="arm64", cpu=Cpu(features=("asimd", "asimddp")), runtimes=ORT)


@pytest.mark.parametrize(
    ("host", "names"),
    [
        (PLAIN, {"cpu-x86-64"}),
        (VNNI, {"cpu-x86-64", "cpu-x86-64-vnni"}),
        (ARM, {"cpu-arm64", "cpu-arm64-dotprod"}),
    ],
)
def test_the_group_makes_what_the_host_can_execute_and_names_the_rest(
    host: Capabilities, names: set[str]
) -> None:
    planned = plan(["cpu"], host)
    assert {target.name for target in planned.targets} == names
    assert {skipped.target for skipped in planned.skipped}.isdisjoint(names)
    assert all("needs" in skipped.reason for skipped in planned.skipped)


def test_a_target_that_is_named_exactly_must_be_executable() -> None:
    with pytest.raises(TargetError, match="cpu-arm64 cannot be executed on this machine"):
        plan(["cpu", "cpu-arm64"], VNNI)


def test_a_target_that_is_not_known_is_an_error_that_names_its_neighbours() -> None:
    with pytest.raises(TargetError, match="cpu-x86-64"):
        plan(["cpu-x86"], VNNI)


def test_a_host_that_can_execute_none_of_a_group_is_an_error() -> None:
    with pytest.raises(TargetError, match="None of the targets"):
        plan(["cpu"], Capabilities(architecture="riscv64", runtimes=ORT))


def test_a_host_without_the_runtime_can_execute_nothing() -> None:
    with pytest.raises(TargetError, match="no runtime"):
        plan(["cpu-x86-64"], Capabilities(cpu=Cpu(features=("avx2",))))


def test_a_target_for_a_runtime_that_executes_nothing_here_is_not_planned() -> None:
    exotic = TargetProfile(
        name="npu", description="", architecture="amd64", int8="u8s8",
        runtimes=(RuntimeRequirement(name="rknn"),),
    )  # fmt: skip
    from converters.plan import _cannot_execute

    assert "rknn" in _cannot_execute(exotic, VNNI, ())[0]


def test_a_target_left_out_names_the_toolchain_that_would_execute_it() -> None:
    skipped = {s.target: s.reason for s in plan(["cpu"], PLAIN).skipped}
    assert "edgeml toolchain install emulate-arm64" in skipped["cpu-arm64"]
    assert "toolchain" not in skipped["cpu-x86-64-vnni"]  # no emulator has VNNI


def test_saturation_is_looked_into_where_nothing_executes_the_instructions() -> None:
    planned = plan(["cpu"], VNNI)
    may = {t.name: planned.may_saturate(t, "onnxruntime") for t in planned.targets}
    assert may == {"cpu-x86-64": True, "cpu-x86-64-vnni": False}
    emulated = plan(["cpu-x86-64"], VNNI, emulated=lambda _: "Haswell")
    assert not emulated.may_saturate(emulated.targets[0], "onnxruntime")
    dot = plan(["cpu-arm64"], ARM)
    assert not dot.may_saturate(dot.targets[0], "onnxruntime")
