"""The processor: model, cores, instruction set features and highest clock."""

from collections import Counter
from pathlib import Path

from hardware.capabilities import Cpu
from hardware.probes import files

_ARM = 0x41
# MIDR part numbers of Arm's own cores (Arm architecture reference manuals, "MIDR_EL1").
_ARM_CORES = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD49: "Neoverse-N2",
    0xD4B: "Cortex-A78C",
    0xD4D: "Cortex-A715",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
}


def cpu(root: Path, board: str = "") -> Cpu:
    """Read the processor; a feature counts only where every core has it (big.LITTLE).

    Args:
        root: where `proc` and `sys` are.
        board: the device tree's name, for kernels that name no model.
    """
    fields: dict[str, str] = {}
    cores = 0
    common: set[str] | None = None
    kinds: Counter[str] = Counter()
    implementer = 0
    for line in files.text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        key, value = key.strip(), value.strip()
        cores += key == "processor"
        fields.setdefault(key, value)
        if key in {"flags", "Features"}:
            common = set(value.split()) & (set(value.split()) if common is None else common)
        elif key == "CPU implementer":
            implementer = _hex(value)
        elif key == "CPU part" and implementer == _ARM:
            kinds[_ARM_CORES.get(_hex(value), f"part {value}")] += 1
    model = fields.get("model name") or fields.get("Model") or board or fields.get("Hardware", "")
    return Cpu(
        model=model,
        cores=max(cores, 1),
        features=tuple(sorted(common or ())),
        kinds=tuple(f"{count} x {kind}" for kind, count in kinds.items()),
        max_mhz=max_mhz(root),
    )


def max_mhz(root: Path) -> int:
    """The highest clock of any core, in MHz; 0 where the kernel does not scale it."""
    limits = files.each(root / "sys/devices/system/cpu", "cpu[0-9]*/cpufreq/cpuinfo_max_freq")
    return max((files.number(limit) or 0 for limit in limits), default=0) // 1000


def _hex(value: str) -> int:
    try:
        return int(value, 16)
    except ValueError:
        return 0
