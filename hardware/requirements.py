"""What a variant needs of a device, and whether a device has it.

`Requirements` is stored with the variant as the annotation `dev.edgeml.requires`;
`unmet` is the one place that compares it with a device's capabilities, for the fleet's
plan and for the agent's choice alike.

    >>> from hardware.capabilities import Capabilities, Cpu
    >>> needs = Requirements(cpu_features=("avx512_vnni",))
    >>> unmet(needs, Capabilities(cpu=Cpu(features=("avx2",))))
    ('needs the CPU feature avx512_vnni, the device has none such',)
"""

import msgspec

from hardware.capabilities import Capabilities


class RuntimeRequirement(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime that can run the variant; `versions` is a PEP 440 range (`>=1.17,<2`)."""

    name: str
    versions: str = ""
    provider: str = ""


class AcceleratorRequirement(msgspec.Struct, frozen=True, kw_only=True):
    """An NPU or FPGA part that the artifact was compiled for."""

    kind: str
    part: str


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
        wanted = " or ".join(f"{r.name}{r.versions}" for r in needs.runtimes)
        present = ", ".join(f"{r.name} {r.version}" for r in has.runtimes) or "no runtime"
        reasons.append(f"needs {wanted}, the device has {present}")
    part = needs.accelerator
    if part and not any(a.kind == part.kind and a.part == part.part for a in has.accelerators):
        reasons.append(f"needs the accelerator {part.kind} {part.part}, the device has none such")
    if has.memory_bytes and needs.memory_bytes > has.memory_bytes:
        reasons.append(
            f"needs {needs.memory_bytes} bytes of memory, the device has {has.memory_bytes}"
        )
    return tuple(reasons)


def runtime_fits(needs: RuntimeRequirement, has: Capabilities) -> bool:
    """Whether the device has this runtime, in the range and with the provider it names.

    A range or a version that cannot be read fits nothing: what is unclear is not run.
    """
    # Late: it costs a device's start more than all else here.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        allowed = SpecifierSet(needs.versions)
    except InvalidSpecifier:
        return False
    for runtime in has.runtimes:
        if runtime.name != needs.name:
            continue
        if needs.provider and needs.provider not in runtime.providers:
            continue
        try:
            if allowed.contains(Version(runtime.version), prereleases=True):
                return True
        except InvalidVersion:
            continue
    return False
