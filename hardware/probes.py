"""What this device is, read from procfs and installed packages.

`probe(root)` takes another root folder, so that recorded trees of real boards can be read.
"""

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hardware.capabilities import Capabilities, Cpu, RuntimeInfo
from hardware.runtimes import runtimes

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}
# What sets one hardware class or instruction set apart from another, strongest first.
_TELLING = {
    "amd64": ("avx512_vnni", "avx_vnni", "avx512f", "avx2"),
    "arm64": ("i8mm", "asimddp", "asimd"),
}


def probe(root: Path = Path("/"), *, machine: str = "") -> Capabilities:
    """Probe this device.

    Args:
        root: where procfs is found.
        machine: as `uname -m` prints it; this machine's by default.
    """
    machine = machine or platform.machine()
    architecture = _ARCHITECTURES.get(machine, machine)
    board = _read(root / "proc/device-tree/model").strip("\0\n ")
    cpu = _cpu(_read(root / "proc/cpuinfo"), board)
    found = Capabilities(
        architecture=architecture,
        cpu=cpu,
        memory_bytes=_memory(_read(root / "proc/meminfo")),
        runtimes=_installed(),
    )
    telling = _telling(found)
    name = "-".join(filter(None, (machine, telling, f"{cpu.cores}c")))
    return Capabilities(
        architecture=found.architecture,
        cpu=found.cpu,
        memory_bytes=found.memory_bytes,
        runtimes=found.runtimes,
        hardware_class=name,
    )


def instruction_set(capabilities: Capabilities) -> str:
    """The name under which outputs are recorded: `x86-64-avx512_vnni`, `aarch64-asimddp`."""
    names = {"amd64": "x86-64", "arm64": "aarch64"}
    base = names.get(capabilities.architecture, capabilities.architecture)
    return "-".join(filter(None, (base, _telling(capabilities))))


def boot_id(root: Path = Path("/")) -> str:
    """The kernel's id of this boot; empty where it gives none."""
    return _read(root / "proc/sys/kernel/random/boot_id").strip()


def _telling(capabilities: Capabilities) -> str:
    order = _TELLING.get(capabilities.architecture, ())
    return next((name for name in order if name in capabilities.cpu.features), "")


def _cpu(cpuinfo: str, board: str) -> Cpu:
    """Read /proc/cpuinfo; a feature counts only where every core has it (big.LITTLE)."""
    fields: dict[str, str] = {}
    cores = 0
    common: set[str] | None = None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        key, value = key.strip(), value.strip()
        cores += key == "processor"
        fields.setdefault(key, value)
        if key in {"flags", "Features"}:
            common = set(value.split()) & (set(value.split()) if common is None else common)
    model = fields.get("model name") or fields.get("Model") or board or fields.get("Hardware", "")
    return Cpu(model=model, cores=max(cores, 1), features=tuple(sorted(common or ())))


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


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
