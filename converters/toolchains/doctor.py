"""Examines toolchains: are they whole, and do they work when something real is executed."""

import time
from typing import Any

import msgspec

from converters.toolchains.definition import Cpu, find
from converters.toolchains.exchange import ask
from converters.toolchains.store import Installed, installed
from edgeml.errors import ToolchainError

_CHECK_TIMEOUT_S = 600
_SHOWN = 5
# numpy's names for what no emulated x86-64 processor may have, or its results prove nothing.
_WIDE = ("avx512", "x86_v4", "avx_vnni", "avxvnni")


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a toolchain, in sentences; nothing if `problems` is empty.

    `checked` holds what its self-check replied, for each processor where it emulates some.
    """

    name: str
    installed: bool
    problems: tuple[str, ...] = ()
    checked: dict[str, Any] = {}
    seconds: float = 0.0

    @property
    def healthy(self) -> bool:
        """Whether it is installed and nothing is wrong."""
        return self.installed and not self.problems


def examine(name: str) -> Diagnosis:
    """Compare a toolchain's files with what was installed, then execute its self-check.

    Raises:
        ToolchainError: there is no such toolchain.
    """
    definition = find(name)
    found = installed(name)
    if found is None:
        return Diagnosis(name=name, installed=False)
    begun = time.monotonic()
    problems: list[str] = []
    checked: dict[str, Any] = {}
    try:
        definition.require_host()
        problems += _files(found)
        emulation = definition.emulation
        if emulation is None:
            checked = ask(found, {}, verb="check", timeout_s=_CHECK_TIMEOUT_S)
        else:
            for cpu in emulation.cpus:
                checked[cpu.name] = _ask_processor(found, cpu)
                problems += _processor(cpu, emulation.architecture, checked[cpu.name])
    except ToolchainError as error:
        problems.append(str(error))
    return Diagnosis(
        name=name,
        installed=True,
        problems=tuple(problems),
        checked=checked,
        seconds=round(time.monotonic() - begun, 1),
    )


def _files(found: Installed) -> list[str]:
    damage = found.damage()
    more = len(damage) - _SHOWN
    return [*damage[:_SHOWN], *([f"{more} more files are damaged."] if more > 0 else [])]


def _ask_processor(found: Installed, cpu: Cpu) -> dict[str, Any]:
    return ask(found, {}, verb="check", cpu=cpu.name, timeout_s=_CHECK_TIMEOUT_S)


def _processor(cpu: Cpu, architecture: str, reply: dict[str, Any]) -> list[str]:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[architecture]
    features = reply["features"]
    problems = []
    if reply["machine"] != machine:
        problems.append(f"{cpu.name} says that it is {reply['machine']}, not {machine}.")
    wide = [name for name in features if name.startswith(_WIDE)]
    if wide:
        problems.append(f"{cpu.name} has {', '.join(wide)}, which it must not have.")
    if ("asimddp" in features) != ("asimddp" in cpu.features):
        problems.append(f"{cpu.name} is wrong about dot products (asimddp).")
    return problems
