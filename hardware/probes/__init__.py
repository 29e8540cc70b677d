"""What this device is, read from procfs, sysfs, device nodes and installed packages.

`probe(root)` takes another root folder, so that recorded trees of real boards can be read.
"""

import platform
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hardware.capabilities import SIMULATED_FPGA, Accelerator, Capabilities, RuntimeInfo
from hardware.probes import files
from hardware.probes.accelerators import FPGA, accelerators
from hardware.probes.cpu import cpu
from hardware.probes.energy import EnergyMeter
from hardware.probes.thermal import (
    Temperature,
    clock_share,
    critical_c,
    hottest,
    temperatures,
    zones,
)
from hardware.runtimes import runtimes

__all__ = [
    "EnergyMeter",
    "Temperature",
    "agent_version",
    "boot_id",
    "clock_share",
    "critical_c",
    "files",
    "hottest",
    "instruction_set",
    "probe",
    "temperatures",
]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}
# What sets one hardware class or instruction set apart from another, strongest first.
_TELLING = {
    "amd64": ("avx512_vnni", "avx_vnni", "avx512f", "avx2"),
    "arm64": ("i8mm", "asimddp", "asimd"),
}


def probe(root: Path = Path("/"), *, machine: str = "") -> Capabilities:
    """Probe this device.

    Args:
        root: where `proc`, `sys` and `dev` are found.
        machine: as `uname -m` prints it; this machine's by default.
    """
    machine = machine or platform.machine()
    architecture = _ARCHITECTURES.get(machine, machine)
    board = files.text(root / "proc/device-tree/model")
    processor = cpu(root, board)
    found = accelerators(root)
    words = (machine, _telling(architecture, processor.features), f"{processor.cores}c")
    return Capabilities(
        architecture=architecture,
        hardware_class="-".join(filter(None, (*words, *_fpgas(found)))),
        cpu=processor,
        memory_bytes=_memory(files.text(root / "proc/meminfo")),
        runtimes=_installed(),
        accelerators=found,
        board=board or files.text(root / "sys/class/dmi/id/product_name"),
        kernel=files.text(root / "proc/sys/kernel/osrelease"),
        thermal_zones=zones(root),
    )


def instruction_set(capabilities: Capabilities) -> str:
    """The name under which outputs are recorded: `x86-64-avx512_vnni`, `aarch64-asimddp`."""
    names = {"amd64": "x86-64", "arm64": "aarch64"}
    base = names.get(capabilities.architecture, capabilities.architecture)
    telling = _telling(capabilities.architecture, capabilities.cpu.features)
    return "-".join(filter(None, (base, telling)))


def boot_id(root: Path = Path("/")) -> str:
    """The kernel's id of this boot; empty where it gives none."""
    return files.text(root / "proc/sys/kernel/random/boot_id")


def _telling(architecture: str, features: tuple[str, ...]) -> str:
    order = _TELLING.get(architecture, ())
    return next((name for name in order if name in features), "")


def _fpgas(found: Iterable[Accelerator]) -> Iterator[str]:
    """What sets a device with an FPGA apart from one that has none, or a simulated one."""
    for one in found:
        if one.kind == FPGA:
            yield one.part
            if one.driver == SIMULATED_FPGA:
                yield "simulated"


def _memory(meminfo: str) -> int:
    found = re.search(r"^MemTotal:\s*(\d{1,15})\b", meminfo, re.MULTILINE | re.ASCII)
    return int(found[1]) * 1024 if found else 0


def _installed() -> tuple[RuntimeInfo, ...]:
    found = (runtime.info() for runtime in runtimes().values())
    return tuple(info for info in found if info is not None)


def agent_version() -> str:
    """The installed version of edgeml."""
    try:
        return version("edgeml")
    except PackageNotFoundError:
        return "0"
