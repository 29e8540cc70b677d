"""Probing, from procfs trees.

`trees/README.md` says which of the trees were recorded, and what in the others is composed.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.capabilities import Capabilities
from hardware.probes import agent_version, boot_id, instruction_set, probe
from hardware.profiles import profiles
from hardware.requirements import unmet

TREES = Path(__file__).parent / "trees"


@pytest.fixture
def vnni() -> Capabilities:
    return probe(TREES / "vnni", machine="x86_64")


@pytest.fixture
def pi5() -> Capabilities:
    return probe(TREES / "pi5", machine="aarch64")


@pytest.fixture
def pi4() -> Capabilities:
    return probe(TREES / "pi4", machine="aarch64")


def test_a_server_with_vnni_is_recognised(vnni: Capabilities) -> None:
    assert vnni.architecture == "amd64"
    assert vnni.cpu.cores == 2
    assert vnni.cpu.model == "AMD EPYC"
    assert vnni.memory_bytes == 24684084 * 1024
    assert vnni.hardware_class == "x86_64-avx512_vnni-2c"
    assert instruction_set(vnni) == "x86-64-avx512_vnni"


def test_a_raspberry_pi_5_is_recognised(pi5: Capabilities) -> None:
    assert pi5.architecture == "arm64"
    assert pi5.cpu.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert "asimddp" in pi5.cpu.features
    assert instruction_set(pi5) == "aarch64-asimddp"


def test_a_raspberry_pi_4_has_no_dot_products_and_is_named_by_its_device_tree(
    pi4: Capabilities,
) -> None:
    assert pi4.cpu.model == "Raspberry Pi 4 Model B Rev 1.1"
    assert pi4.hardware_class == "aarch64-asimd-4c"
    assert instruction_set(pi4) == "aarch64-asimd"


def test_a_feature_counts_only_where_every_core_has_it(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    cores = ("processor : 0\nFeatures : asimd asimddp", "processor : 1\nFeatures : asimd")
    (tmp_path / "proc/cpuinfo").write_text("\n\n".join(cores))
    assert probe(tmp_path, machine="aarch64").cpu.features == ("asimd",)


def test_the_id_of_the_boot_is_read_and_empty_where_there_is_none(tmp_path: Path) -> None:
    assert boot_id(tmp_path) == ""
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("1b4e28ba-2fa1-11d2\n")
    assert boot_id(tmp_path) == "1b4e28ba-2fa1-11d2"


def test_the_agent_has_a_version() -> None:
    assert agent_version()[0].isdigit()


@pytest.mark.parametrize(
    ("name", "package", "provider"),
    [
        ("onnxruntime", "onnxruntime", "CPUExecutionProvider"),
        ("openvino", "openvino", "CPU"),
        ("litert", "ai-edge-litert", "XNNPACK"),
    ],
)
def test_an_installed_runtime_is_named_with_its_exact_version(
    vnni: Capabilities, name: str, package: str, provider: str
) -> None:
    exact = version(package)
    [runtime] = [r for r in vnni.runtimes if r.name == name]
    assert runtime.version == exact
    assert provider in runtime.providers


def test_probing_does_not_load_the_runtimes_that_a_device_has_but_does_not_use() -> None:
    code = (
        "import sys; from hardware.probes import probe; probe();"
        "print([m for m in ('openvino', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_machine_without_procfs_is_still_described(tmp_path: Path) -> None:
    found = probe(tmp_path, machine="riscv64")
    assert (found.architecture, found.memory_bytes, found.cpu.cores) == ("riscv64", 0, 1)


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_no_procfs_is_too_strange_to_probe(cpuinfo: bytes, meminfo: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "proc").mkdir()
        (root / "proc/cpuinfo").write_bytes(b"processor\t: 0\nflags\t: " + cpuinfo)
        (root / "proc/meminfo").write_bytes(b"MemTotal:" + meminfo)
        found = probe(root, machine="x86_64")
    assert found.cpu.cores >= 1
    assert found.memory_bytes >= 0


def test_each_board_fits_the_targets_of_its_kind(
    vnni: Capabilities, pi5: Capabilities, pi4: Capabilities
) -> None:
    def fitting(board: Capabilities) -> list[str]:
        return [n for n, p in profiles().items() if not unmet(p.requirements(), board)]

    assert fitting(vnni) == ["cpu-x86-64", "cpu-x86-64-vnni"]
    assert fitting(pi4) == ["cpu-arm64"]
    assert fitting(pi5) == ["cpu-arm64", "cpu-arm64-dotprod"]
