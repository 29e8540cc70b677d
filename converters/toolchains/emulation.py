"""Runs Python on a processor that this machine does not have, with QEMU's user mode.

`command` is what stands before `-m converters.worker`; what runs under it is the real artifact
in the real runtime, on the instructions of that processor. Times taken there mean nothing.

A program that is emulated still reads the host's `/proc/cpuinfo` on x86-64: ask the processor
itself (CPUID), as onnxruntime and numpy do.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import converters
from converters.toolchains.definition import Cpu, Definition, Emulation, definitions
from converters.toolchains.environment import CPUS, SITE
from converters.toolchains.store import Installed, installed, require
from edgeml.errors import TargetError


def command(architecture: str, cpu: str = "") -> list[str]:
    """The emulator and the interpreter, to which `-m MODULE` or a script is added.

    Args:
        architecture: as in OCI, `amd64` or `arm64`.
        cpu: one of the definition's processors (`Haswell`, `cortex-a53`, `neoverse-n1`); the
            plainest if empty.

    Raises:
        TargetError: no such processor can be emulated.
        ToolchainError: the toolchain is not installed, or not for this machine.
    """
    definition = _definition(architecture)
    assert definition.emulation is not None
    model = _cpu(definition.emulation, cpu)
    return command_in(require(definition.name), model)


def command_in(toolchain: Installed, cpu: Cpu) -> list[str]:
    """The same, for a toolchain and a processor that are known."""
    emulation = toolchain.definition.emulation
    assert emulation is not None
    qemu = str(toolchain.folder / emulation.qemu)
    if not emulation.root:
        return [qemu, "-cpu", cpu.model, sys.executable]
    root = toolchain.folder / CPUS / cpu.name
    source = Path(converters.__file__).parents[1]
    path = os.pathsep.join([str(toolchain.folder / SITE), str(source)])
    return [
        *(qemu, "-cpu", cpu.model, "-L", str(root)),
        *("-E", f"PYTHONPATH={path}", "-U", "PYTHONHOME", "-U", "LD_LIBRARY_PATH"),
        # without `site`, the host's own packages stay out
        *(str(root / "usr" / "bin" / "python3"), "-S"),
    ]


def cpu_for(architecture: str, features: Sequence[str]) -> str | None:
    """The plainest processor with these features, each `a|b` meaning any of them.

    None where none can be emulated: QEMU has no AVX512 and no VNNI.
    """
    for definition in definitions().values():
        emulation = definition.emulation
        if emulation and emulation.architecture == architecture:
            for cpu in emulation.cpus:
                if all(set(wanted.split("|")) & set(cpu.features) for wanted in features):
                    return cpu.name
    return None


def is_ready(architecture: str) -> bool:
    """Whether the toolchain for an architecture is installed."""
    try:
        return installed(_definition(architecture).name) is not None
    except TargetError:
        return False


def _definition(architecture: str) -> Definition:
    known = {d.emulation.architecture: d for d in definitions().values() if d.emulation}
    if architecture not in known:
        raise TargetError(
            f"No processor of the architecture {architecture} can be emulated.",
            why=f"There are toolchains for {', '.join(known)}.",
        )
    return known[architecture]


def _cpu(emulation: Emulation, name: str) -> Cpu:
    known = {cpu.name: cpu for cpu in emulation.cpus}
    if not name:
        return emulation.cpus[0]
    if name not in known:
        raise TargetError(
            f"The processor {name} is not emulated for {emulation.architecture}.",
            why=f"Known are {', '.join(known)}.",
        )
    return known[name]
