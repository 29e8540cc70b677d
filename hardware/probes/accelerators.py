"""NPUs, GPUs and FPGAs: found by device nodes and sysfs, each kind by one small function.

What is found is a fact of the kernel's: a device that a driver has taken. Whether a runtime can
use it is another question, which the runtime answers.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from hardware.capabilities import Accelerator
from hardware.probes import files

NPU = "npu"
GPU = "gpu"
FPGA = "fpga"
PROGRAMMER = "fpga-programmer"

# PCI ids as drivers/accel/ivpu of the Linux kernel lists them.
_INTEL_NPUS = {
    "8086:7D1D": "intel-npu-37xx-meteor-lake",
    "8086:AD1D": "intel-npu-37xx-arrow-lake",
    "8086:643E": "intel-npu-40xx-lunar-lake",
    "8086:B03E": "intel-npu-50xx-panther-lake",
}
# What the device-tree name of a chip says of the NPU in it (vendors' reference manuals).
_ETHOS_U_IN = {"fsl,imx93": "ethos-u65-256"}
# The HTP in a chip, by the chip's device-tree name (Qualcomm's tables of supported chips).
_HEXAGONS = {
    "v68": ("qcm6490", "qcs6490", "qcs5430", "sc7280", "sc8280xp", "sm8350", "sa8295p"),
    "v69": ("sm8450", "sm8475"),
    "v73": ("qcs8550", "qcs9075", "qcs9100", "sa8255p", "sa8775p", "sm8550", "x1e80100"),
    "v75": ("qcs8275", "qcs8300", "sm8650"),
    "v79": ("sm8750",),
}
# drivers/fpga: the name each FPGA manager gives itself, and the family that it programs.
_FPGA_FAMILIES = (
    ("zynqmp", "xilinx-zynqmp"),
    ("versal", "xilinx-versal"),
    ("zynq", "xilinx-zynq-7000"),
    ("stratix10", "altera-stratix10"),
    ("socfpga arria", "altera-arria10"),
    ("socfpga", "altera-cyclone-v"),
    ("ice40", "lattice-ice40"),
    ("ecp5", "lattice-ecp5"),
    ("machxo2", "lattice-machxo2"),
    ("lattice", "lattice-sysconfig"),
    ("polarfire", "microchip-polarfire"),
    ("microchip", "microchip-polarfire"),
)
_USB = {
    "1a6e:089a": (NPU, "coral-edgetpu-usb"),  # before its firmware was loaded
    "18d1:9302": (NPU, "coral-edgetpu-usb"),
    "03fd:0008": (PROGRAMMER, "xilinx-platform-cable"),
    "03fd:000d": (PROGRAMMER, "xilinx-platform-cable"),
    "03fd:0013": (PROGRAMMER, "xilinx-platform-cable"),
    "03fd:0015": (PROGRAMMER, "xilinx-platform-cable"),
    "09fb:6001": (PROGRAMMER, "altera-usb-blaster"),
    "09fb:6002": (PROGRAMMER, "altera-usb-blaster"),
    "09fb:6003": (PROGRAMMER, "altera-usb-blaster"),
    "09fb:6010": (PROGRAMMER, "altera-usb-blaster-2"),
    "09fb:6810": (PROGRAMMER, "altera-usb-blaster-2"),
    "1134:8001": (PROGRAMMER, "lattice-hw-usbn-2a"),
}
_FTDI = "0403"  # in half of all FPGA boards, and in every other serial cable: its name tells
_BOARD = re.compile(r"lattice|digilent|xilinx|altera|icebreaker|ulx3s|orangecrab", re.IGNORECASE)


def accelerators(root: Path = Path("/")) -> tuple[Accelerator, ...]:
    """Every accelerator below a root folder, each once, in the order of the table."""
    compatible = files.words(root / "proc/device-tree/compatible")
    return tuple(found for finder in _FINDERS for found in finder(root, compatible))


def _accel_class(root: Path, compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """Drivers of the kernel's own class: /dev/accel/accel0."""
    for folder in files.each(root / "sys/class/accel", "accel[0-9]*"):
        event = files.fields(folder / "device/uevent")
        driver = event.get("DRIVER", "")
        pci = event.get("PCI_ID", "")
        if driver == "intel_vpu":
            part = _INTEL_NPUS.get(pci.upper(), f"intel-npu-{pci.lower()}")
        elif driver == "rocket":
            part = _chip(compatible, "rockchip") + "-npu"
        else:
            part = event.get("OF_COMPATIBLE_0", "").replace("arm,", "") or pci.lower() or driver
        yield Accelerator(
            kind=NPU,
            part=part,
            architecture="intel-npu" if driver == "intel_vpu" else "",
            driver=_driver(root, driver),
            firmware=files.text(folder / "device/fw_version"),
            path=f"/dev/accel/{folder.name}",
        )


def _ethos_u(root: Path, compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """The vendor's driver, on chips whose Cortex-M holds the NPU: /dev/ethosu0."""
    part = next((p for name, p in _ETHOS_U_IN.items() if name in compatible), "ethos-u")
    for node in files.each(root / "dev", "ethosu[0-9]*"):
        yield Accelerator(
            kind=NPU, part=part, driver=_driver(root, "ethosu"), path=f"/dev/{node.name}"
        )


def _rockchip(root: Path, compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """Rockchip's own driver; its version is in debugfs, which root alone may read."""
    for device in files.each(root / "sys/bus/platform/drivers/RKNPU", "*.npu"):
        said = re.search(r"v?(\d+(?:\.\d+)+)", files.text(root / "sys/kernel/debug/rknpu/version"))
        version = said[1] if said else files.text(root / "sys/module/rknpu/version")
        node = root / f"dev/dri/by-path/platform-{device.name}-render"
        yield Accelerator(
            kind=NPU,
            part=_chip(compatible, "rockchip") + "-npu",
            driver=f"rknpu {version}".strip(),
            path=f"/dev/dri/{node.resolve().name}" if node.exists() else "",
        )


def _qualcomm(root: Path, compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """The compute DSP, over FastRPC; its firmware is what remoteproc loaded."""
    for node in files.each(root / "dev", "fastrpc-cdsp*"):
        if node.name.endswith("-secure"):
            continue
        firmware = ""
        for processor in files.each(root / "sys/class/remoteproc", "remoteproc[0-9]*"):
            if files.text(processor / "name").startswith("cdsp"):
                state = files.text(processor / "state")
                firmware = f"{files.text(processor / 'firmware')} ({state})"
        chip = _chip(compatible, "qcom")
        htp = next((htp for htp, chips in _HEXAGONS.items() if chip in chips), "")
        yield Accelerator(
            kind=NPU,
            part=f"hexagon-{chip}",
            architecture=f"hexagon-{htp}" if htp else "",
            driver=_driver(root, "fastrpc"),
            firmware=firmware,
            path=f"/dev/{node.name}",
        )


def _edge_tpu(root: Path, _compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """Coral on PCIe, with Google's driver: /dev/apex_0."""
    for folder in files.each(root / "sys/class/apex", "apex_[0-9]*"):
        version = files.text(folder / "driver_version")
        yield Accelerator(
            kind=NPU,
            part="coral-edgetpu-pcie",
            driver=f"apex {version}".strip(),
            path=f"/dev/{folder.name}",
        )


def _jetson(root: Path, compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """The integrated GPU of a Jetson; its driver comes with the board's L4T release."""
    chip = _chip(compatible, "nvidia")
    release = re.search(
        r"R(\d+) \(release\), REVISION: ([\d.]+)", files.text(root / "etc/nv_tegra_release")
    )
    if chip.startswith("tegra") and (root / "dev/nvhost-gpu").exists():
        yield Accelerator(
            kind=GPU,
            part=f"{chip}-gpu",
            driver=f"l4t {release[1]}.{release[2]}" if release else "nvgpu",
            path="/dev/nvhost-gpu",
        )


def _fpga_manager(root: Path, _compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """FPGAs that the kernel can program, by the name of their manager."""
    for folder in files.each(root / "sys/class/fpga_manager", "fpga[0-9]*"):
        name = files.text(folder / "name")
        family = next((f for word, f in _FPGA_FAMILIES if word in name.lower()), "")
        yield Accelerator(
            kind=FPGA,
            part=family or name or folder.name,
            driver=name,
            firmware=files.text(folder / "state"),
            path=f"/dev/{folder.name}" if (root / "dev" / folder.name).exists() else "",
        )


def _engine(root: Path, _compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """An FPGA with edgeml's engine, which only `EDGEML_FPGA` and `EDGEML_FPGA_PART` tell of."""
    way, part = os.environ.get("EDGEML_FPGA", ""), os.environ.get("EDGEML_FPGA_PART", "")
    if way and part and root == Path("/"):
        yield Accelerator(kind=FPGA, part=part, driver=way)


def _usb(root: Path, _compatible: tuple[str, ...]) -> Iterator[Accelerator]:
    """What is plugged in: Edge TPUs, and cables that program FPGAs."""
    for device in files.each(root / "sys/bus/usb/devices", "*"):
        vendor = files.text(device / "idVendor").lower()
        if not vendor:
            continue
        known = _USB.get(f"{vendor}:{files.text(device / 'idProduct').lower()}")
        name = " ".join(files.text(device / key) for key in ("manufacturer", "product")).strip()
        if known is None and vendor == _FTDI:
            brand = _BOARD.search(name)
            known = (PROGRAMMER, f"{brand[0].lower()}-ftdi") if brand else None
        elif known is None and vendor == "1443":  # Digilent's own
            known = (PROGRAMMER, "digilent-usb")
        if known is not None:
            bus, number = files.number(device / "busnum"), files.number(device / "devnum")
            yield Accelerator(
                kind=known[0],
                part=known[1],
                driver=name,
                path=f"/dev/bus/usb/{bus:03d}/{number:03d}" if bus and number else "",
            )


_FINDERS: tuple[Callable[[Path, tuple[str, ...]], Iterator[Accelerator]], ...] = (
    _accel_class,
    _ethos_u,
    _rockchip,
    _qualcomm,
    _edge_tpu,
    _jetson,
    _fpga_manager,
    _engine,
    _usb,
)


def _chip(compatible: tuple[str, ...], vendor: str) -> str:
    """The chip's name: the last entry of that vendor, most general (`rockchip,rk3588`)."""
    names = [name.partition(",")[2] for name in compatible if name.startswith(f"{vendor},")]
    named = [name for name in names if not name.endswith("x")]  # nvidia ends in tegra23x
    return (named or names or [vendor])[-1]


def _driver(root: Path, module: str) -> str:
    """A driver with the version that its module states, where it states one."""
    return f"{module} {files.text(root / 'sys/module' / module / 'version')}".strip()
