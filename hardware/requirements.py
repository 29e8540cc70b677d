"""What a variant needs of a device, and whether a device has it.

`Requirements` is stored with the variant as the annotation `dev.edgeml.requires`;
`unmet` is the one place that compares it with a device's capabilities, for the fleet's
plan and for the agent's choice alike.

    >>> from hardware.capabilities import Capabilities, Cpu
    >>> needs = Requirements(cpu_features=("avx512_vnni",))
    >>> unmet(needs, Capabilities(cpu=Cpu(features=("avx2",))))
    ('needs the CPU feature avx512_vnni, the device has none such',)
"""

import re

import msgspec

from hardware.capabilities import Accelerator, Capabilities, RuntimeInfo


class RuntimeRequirement(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime that can run the variant; `versions` is a PEP 440 range (`>=1.17,<2`)."""

    name: str
    versions: str = ""
    provider: str = ""


class AcceleratorRequirement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An NPU or FPGA that the artifact was compiled for.

    `part` is met by an accelerator's part or by its architecture; `a|b` by either. `driver` and
    `firmware` are PEP 440 ranges of their versions (`>=0.9.2`), empty where any will do.
    """

    kind: str
    part: str
    driver: str = ""
    firmware: str = ""


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a device must have; any one of `runtimes` will do, all else is needed.

    A CPU feature `avx512_vnni|avx_vnni` is met by either.
    """

    os: str = "linux"
    architecture: str = "amd64"
    cpu_features: tuple[str, ...] = ()
    runtimes: tuple[RuntimeRequirement, ...] = ()
    accelerator: AcceleratorRequirement | None = None
    memory_bytes: int = 0


def unmet(needs: Requirements, has: Capabilities) -> tuple[str, ...]:
    """Return every need that the device does not meet, each a clause a person can read."""
    reasons: list[str] = []
    if needs.os != has.os:
        reasons.append(f"needs {needs.os}, the device runs {has.os}")
    if needs.architecture != has.architecture:
        reasons.append(f"needs {needs.architecture}, the device is {has.architecture}")
    reasons += [
        f"needs the CPU feature {feature.replace('|', ' or ')}, the device has none such"
        for feature in needs.cpu_features
        if not set(feature.split("|")) & set(has.cpu.features)
    ]
    if needs.runtimes and not any(runtime_fits(r, has) for r in needs.runtimes):
        wanted = " or ".join(_in_words(r) for r in needs.runtimes)
        named = {r.name for r in needs.runtimes if r.provider}
        present = ", ".join(_present(r, named) for r in has.runtimes) or "no runtime"
        reasons.append(f"needs {wanted}, the device has {present}")
    if needs.accelerator:
        reasons += _accelerator_lacks(needs.accelerator, has)
    if has.memory_bytes and needs.memory_bytes > has.memory_bytes:
        reasons.append(
            f"needs {needs.memory_bytes} bytes of memory, the device has {has.memory_bytes}"
        )
    return tuple(reasons)


def runtime_fits(needs: RuntimeRequirement, has: Capabilities) -> bool:
    """Whether the device has this runtime, in the range and with the provider it names.

    A range or a version that cannot be read fits nothing: what is unclear is not run.
    """
    return any(
        runtime.name == needs.name
        and (not needs.provider or needs.provider in runtime.providers)
        and _in_range(runtime.version, needs.versions)
        for runtime in has.runtimes
    )


def _in_words(needs: RuntimeRequirement) -> str:
    with_provider = f" with {needs.provider}" if needs.provider else ""
    return f"{needs.name}{needs.versions}{with_provider}"


def _present(runtime: RuntimeInfo, with_providers: set[str]) -> str:
    said = f"{runtime.name} {runtime.version}"
    if runtime.name not in with_providers:
        return said
    return f"{said} with {' and '.join(runtime.providers) or 'no provider'}"


def _accelerator_lacks(needs: AcceleratorRequirement, has: Capabilities) -> tuple[str, ...]:
    """What the device's accelerators lack; of several that fit in part, what the best one lacks."""
    parts = needs.part.split("|")
    wanted = f"the accelerator {needs.kind} {' or '.join(parts)}"
    same_kind = [a for a in has.accelerators if a.kind == needs.kind]
    fitting = [a for a in same_kind if a.part in parts or (a.architecture in parts)]
    if not fitting:
        present = ", ".join(" ".join(filter(None, (a.part, a.architecture))) for a in same_kind)
        return (f"needs {wanted}, the device has {present or 'none such'}",)
    return min((_versions_lack(needs, accelerator) for accelerator in fitting), key=len)


def _versions_lack(needs: AcceleratorRequirement, has: Accelerator) -> tuple[str, ...]:
    return tuple(
        f"needs {what}{allowed} of {has.part}, the device has {said or 'none that tells a version'}"
        for what, allowed, said in (
            ("the driver", needs.driver, has.driver),
            ("the firmware", needs.firmware, has.firmware),
        )
        if allowed and not _in_range(_version_in(said), allowed)
    )


def _version_in(said: str) -> str:
    """The version in what a driver or firmware says of itself: `rknpu 0.9.8`."""
    found = re.search(r"\d+(?:\.\d+)*", said.rpartition(" ")[2])
    return found[0] if found else ""


def _in_range(version: str, allowed: str) -> bool:
    """Whether a version is in a range; what cannot be read is not."""
    # Late: it costs a device's start more than all else here.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(allowed).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return False
