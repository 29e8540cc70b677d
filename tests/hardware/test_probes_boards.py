"""Boards that agents run on, from trees of procfs and sysfs; `trees/README.md` says whence."""

import shutil
from pathlib import Path

import pytest

from hardware.capabilities import Accelerator, Capabilities
from hardware.probes import clock_share, critical_c, hottest, instruction_set, probe, temperatures

TREES = Path(__file__).parent / "trees"


def board(name: str, machine: str = "aarch64") -> Capabilities:
    return probe(TREES / name, machine=machine)


@pytest.mark.parametrize(
    ("name", "called", "kinds", "isa", "mhz"),
    [
        ("pi4", "Raspberry Pi 4 Model B Rev 1.1", ("4 x Cortex-A72",), "aarch64-asimd", 1500),
        ("pi5", "Raspberry Pi 5 Model B Rev 1.0", ("4 x Cortex-A76",), "aarch64-asimddp", 2400),
        (
            "orin-nano",
            "NVIDIA Jetson Orin Nano Developer Kit",
            ("6 x Cortex-A78AE",),
            "aarch64-asimddp",
            1510,
        ),
        (
            "rock5b",
            "Radxa ROCK 5B",
            ("4 x Cortex-A55", "4 x Cortex-A76"),
            "aarch64-asimddp",
            2400,
        ),
        ("imx93", "NXP i.MX93 11X11 EVK board", ("2 x Cortex-A55",), "aarch64-asimddp", 1700),
        (
            "rb3gen2",
            "Qualcomm Technologies, Inc. Robotics RB3gen2",
            ("4 x Cortex-A55", "4 x Cortex-A78"),
            "aarch64-asimddp",
            2707,
        ),
        ("kv260", "ZynqMP SMK-K26 Rev1/B/A", ("4 x Cortex-A53",), "aarch64-asimd", 1333),
    ],
)
def test_an_arm_board_is_known_by_name_cores_and_clock(
    name: str, called: str, kinds: tuple[str, ...], isa: str, mhz: int
) -> None:
    found = board(name)
    assert found.board == called
    assert found.cpu.kinds == kinds
    assert found.cpu.cores == sum(int(kind.split()[0]) for kind in kinds)
    assert instruction_set(found) == isa
    assert found.cpu.max_mhz == mhz
    assert found.kernel
    assert found.memory_bytes > 1 << 30


def test_a_core_ultra_is_known_by_its_processor_and_vnni() -> None:
    found = board("core-ultra", "x86_64")
    assert found.cpu.model == "Intel(R) Core(TM) Ultra 7 155U"
    assert found.board == "NUC14RVK"
    assert instruction_set(found) == "x86-64-avx_vnni"
    assert found.cpu.kinds == ()


@pytest.mark.parametrize(
    ("name", "machine", "expected"),
    [
        (
            "pi4",
            "aarch64",
            Accelerator(kind="npu", part="coral-edgetpu-usb", path="/dev/bus/usb/002/003"),
        ),
        (
            "orin-nano",
            "aarch64",
            Accelerator(
                kind="gpu", part="tegra234-gpu", driver="l4t 36.4.3", path="/dev/nvhost-gpu"
            ),
        ),
        (
            "rock5b",
            "aarch64",
            Accelerator(
                kind="npu",
                part="rk3588-npu",
                driver="rknpu 0.9.8",
                path="/dev/dri/renderD129",
            ),
        ),
        (
            "imx93",
            "aarch64",
            Accelerator(kind="npu", part="ethos-u65-256", driver="ethosu", path="/dev/ethosu0"),
        ),
        (
            "core-ultra",
            "x86_64",
            Accelerator(
                kind="npu",
                part="intel-npu-37xx-meteor-lake",
                architecture="intel-npu",
                driver="intel_vpu",
                path="/dev/accel/accel0",
            ),
        ),
        (
            "rb3gen2",
            "aarch64",
            Accelerator(
                kind="npu",
                part="hexagon-qcm6490",
                architecture="hexagon-v68",
                driver="fastrpc",
                firmware="qcom/qcs6490/cdsp.mbn (running)",
                path="/dev/fastrpc-cdsp",
            ),
        ),
    ],
)
def test_an_accelerator_is_named_with_driver_firmware_and_device(
    name: str, machine: str, expected: Accelerator
) -> None:
    assert board(name, machine).accelerators == (expected,)


def test_an_fpga_and_the_cable_that_programs_it_are_two_things() -> None:
    fpga, cable = board("kv260").accelerators
    assert (fpga.kind, fpga.part, fpga.firmware) == ("fpga", "xilinx-zynqmp", "operating")
    assert fpga.driver == "Xilinx ZynqMP FPGA Manager"
    assert (cable.kind, cable.part) == ("fpga-programmer", "xilinx-ftdi")
    assert cable.path == "/dev/bus/usb/001/002"


def test_a_board_without_an_accelerator_has_none() -> None:
    assert board("pi5").accelerators == ()


def test_a_serial_cable_is_no_programmer(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/usb/devices/1-1"
    device.mkdir(parents=True)
    for name, text in {"idVendor": "0403", "idProduct": "6001", "product": "FT232R"}.items():
        (device / name).write_text(text + "\n")
    assert probe(tmp_path, machine="aarch64").accelerators == ()
    (device / "product").write_text("ULX3S FPGA 85K v3.0.8\n")
    [found] = probe(tmp_path, machine="aarch64").accelerators
    assert (found.kind, found.part, found.path) == ("fpga-programmer", "ulx3s-ftdi", "")


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("accel", "DRIVER=rocket\nOF_COMPATIBLE_0=rockchip,rk3588-rknn-core\n", "rockchip-npu"),
        ("accel", "DRIVER=ethosu\nOF_COMPATIBLE_0=arm,ethos-u85\n", "ethos-u85"),
        ("accel", "DRIVER=amdxdna\nPCI_ID=1022:1502\n", "1022:1502"),
        ("accel", "DRIVER=intel_vpu\nPCI_ID=8086:FFFF\n", "intel-npu-8086:ffff"),
    ],
)
def test_what_the_kernels_own_class_holds_is_named_as_far_as_it_is_known(
    tmp_path: Path, name: str, text: str, part: str
) -> None:
    event = tmp_path / f"sys/class/{name}/accel0/device/uevent"
    event.parent.mkdir(parents=True)
    event.write_text(text)
    [found] = probe(tmp_path, machine="x86_64").accelerators
    assert (found.kind, found.part, found.path) == ("npu", part, "/dev/accel/accel0")


def test_a_coral_on_pcie_says_its_driver(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/apex/apex_0"
    folder.mkdir(parents=True)
    (folder / "driver_version").write_text("1.2\n")
    [found] = probe(tmp_path, machine="aarch64").accelerators
    assert (found.part, found.driver, found.path) == (
        "coral-edgetpu-pcie",
        "apex 1.2",
        "/dev/apex_0",
    )


def test_zones_that_are_off_are_known_and_not_read() -> None:
    tree = TREES / "orin-nano"
    assert "cv0-thermal" in board("orin-nano").thermal_zones
    assert [t.zone for t in temperatures(tree)] == ["cpu-thermal", "gpu-thermal", "tj-thermal"]
    warmest = hottest(tree)
    assert warmest is not None
    assert (warmest.zone, warmest.celsius) == ("tj-thermal", 48.656)
    assert critical_c(tree) == 104.5


def test_a_clock_that_is_held_back_is_seen() -> None:
    assert clock_share(TREES / "pi4") == 0.4
    assert clock_share(TREES / "pi5") == 1.0
    assert clock_share(TREES / "vnni") == 1.0


@pytest.mark.parametrize("milli", ["-274000", "999999", "", "hot"])
def test_a_sensor_that_answers_nonsense_is_left_out(tmp_path: Path, milli: str) -> None:
    shutil.copytree(TREES / "pi5", tmp_path / "tree")
    (tmp_path / "tree/sys/class/thermal/thermal_zone0/temp").write_text(milli)
    assert hottest(tmp_path / "tree") is None
