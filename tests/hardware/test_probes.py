"""Probing, from recorded procfs trees of real boards."""

from pathlib import Path

import pytest

from hardware.capabilities import Capabilities
from hardware.probes import instruction_set, probe
from hardware.profiles import profiles
from hardware.requirements import unmet

TREES = Path(__file__).parent / "trees"


@pytest.fixture
def vnni() -> Capabilities:
    return probe(TREES / "vnni", machine="x86_64")


@pytest.fixture
def pi5() -> Capabilities:
    return probe(TREES / "pi5", machine="aarch64")


def test_a_server_with_vnni_is_recognised(vnni: Capabilities) -> None:
    assert vnni.architecture == "amd64"
    assert vnni.cpu.cores == 2
    assert vnni.cpu.model.startswith("Intel")
    assert vnni.memory_bytes == 24577304 * 1024
    assert vnni.hardware_class == "x86_64-avx512_vnni-2c"
    assert instruction_set(vnni) == "x86-64-avx512_vnni"


def test_a_raspberry_pi_5_is_recognised(pi5: Capabilities) -> None:
    assert pi5.architecture == "arm64"
    assert pi5.cpu.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert "asimddp" in pi5.cpu.features
    assert instruction_set(pi5) == "aarch64-asimddp"


def test_the_installed_runtime_is_named_with_its_version(vnni: Capabilities) -> None:
    [runtime] = [r for r in vnni.runtimes if r.name == "onnxruntime"]
    assert runtime.version
    assert "CPUExecutionProvider" in runtime.providers


def test_a_machine_without_procfs_is_still_described(tmp_path: Path) -> None:
    found = probe(tmp_path, machine="riscv64")
    assert (found.architecture, found.memory_bytes, found.cpu.cores) == ("riscv64", 0, 1)


def test_each_board_fits_the_targets_of_its_kind(vnni: Capabilities, pi5: Capabilities) -> None:
    def fitting(board: Capabilities) -> list[str]:
        return [n for n, p in profiles().items() if not unmet(p.requirements(), board)]

    assert fitting(vnni) == ["cpu-x86-64", "cpu-x86-64-vnni"]
    assert fitting(pi5) == ["cpu-arm64", "cpu-arm64-dotprod"]
