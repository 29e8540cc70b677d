"""Which targets a conversion makes, on which runtimes, given what this machine can execute."""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from cloud_sync.evidence import Verification
from converters.backends.elsewhere import refuse_elsewhere
from converters.result import Skipped
from converters.toolchains import emulation
from converters.toolchains.store import installed, require
from edgeml.errors import TargetError, UserError
from hardware.capabilities import Capabilities
from hardware.profiles import TargetProfile, select
from hardware.requirements import runtime_fits, unmet
from hardware.runtimes import runtimes as known_runtimes
from hardware.runtimes.formats import ONNX, TFLITE

CONVERTED = {"litert": ("onnx2tf", "ai-edge-quantizer")}  # what makes its files from ONNX
EMULATED_RUNTIMES = ("onnxruntime",)  # what the emulators' toolchains hold
_QEMU_NAMES = {"amd64": "x86-64"}

# Of each profile's arithmetic: the flavours of integers worth trying, the fastest first.
_FLAVOURS = {"u8s8": ("u8s8", "s8s8"), "u8s8-reduced": ("u8s8-reduced", "u8u8")}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Targets to convert for, each with its runtimes, and those that were left out.

    `runtimes` are by target, in the profile's order; `proxies` are targets whose
    instructions this machine has and exceeds, `emulated` the processors that stand in for
    targets under an emulator, and `foreign` those of them that cannot be executed here at all.
    `formats` are the files' that each runtime executes; `optional` are runtimes that were not
    asked for and need a conversion, so that they are left out where it does not come about.
    `compiled` are targets that a backend serves: nothing races for them.
    """

    targets: tuple[TargetProfile, ...]
    compiled: tuple[TargetProfile, ...] = ()
    runtimes: dict[str, tuple[str, ...]]
    proxies: frozenset[str] = frozenset()
    emulated: dict[str, str] = {}
    foreign: frozenset[str] = frozenset()
    formats: dict[str, str] = {}
    optional: frozenset[str] = frozenset()
    skipped: tuple[Skipped, ...]

    @property
    def all_runtimes(self) -> tuple[str, ...]:
        """Every runtime that some target uses, each once."""
        return tuple(dict.fromkeys(r for names in self.runtimes.values() for r in names))

    def runtimes_of(self, target: TargetProfile) -> tuple[str, ...]:
        """The runtimes that execute a target's candidates here."""
        return self.runtimes[target.name]

    def format_on(self, runtime: str) -> str:
        """The format of the files that a runtime executes here."""
        return self.formats.get(runtime, ONNX)

    def verification_of(self, target: TargetProfile, runtime: str) -> Verification:
        """How far a variant for a target is checked by executing it on a runtime."""
        if target.name in self.emulated and runtime in EMULATED_RUNTIMES:
            return Verification.ARTIFACT_EXECUTED_EMULATED
        if target.name in self.proxies:
            return Verification.CPU_PROXY
        return Verification.ARTIFACT_EXECUTED

    def may_saturate(self, target: TargetProfile, runtime: str) -> bool:
        """Whether a target's 8-bit sums may saturate, and nothing executes it to show that."""
        lacks_vnni = target.architecture == "amd64" and target.name in self.proxies
        return lacks_vnni and self.verification_of(target, runtime) is Verification.CPU_PROXY


def flavours_of(target: TargetProfile) -> tuple[str, ...]:
    """The flavours of integers that suit a target's arithmetic, the most promising first."""
    return _FLAVOURS.get(target.int8, (target.int8,))


def emulated_cpu(profile: TargetProfile) -> str | None:
    """The processor that can stand in for a target's, where its toolchain is installed."""
    if not emulation.is_ready(profile.architecture):
        return None
    return emulation.cpu_for(profile.architecture, profile.cpu_features)


def plan(
    names: Sequence[str],
    host: Capabilities,
    wanted: Sequence[str] = (),
    emulated: Callable[[TargetProfile], str | None] = emulated_cpu,
    *,
    model_format: str = ONNX,
    decided: Collection[str] | None = None,
) -> Plan:
    """Choose the targets that can be executed here, and the runtimes for each.

    Args:
        names: targets and groups of them.
        host: this machine.
        wanted: the only runtimes to use; none names all.
        emulated: which processor can stand in for a target's, if any.
        model_format: the model file's, which decides on who can execute it. LiteRT executes
            an ONNX model, too, where it is asked for or its toolchains are installed.
        decided: the runtimes that a recipe names; None without a recipe.

    Raises:
        TargetError: a target is not known, one that was named exactly cannot be executed
            here, or none of a group can.
        ToolchainError: a runtime that was asked for takes no ONNX file, and what makes its
            files is not installed.
        UserError: a runtime that was asked for is not known or not installed.
    """
    _check_runtimes(wanted, host)
    asked = {*wanted, *(decided or ())}
    optional = _optional(asked) if model_format == ONNX and decided is None else frozenset()
    formats = _formats(model_format, {*asked, *optional})
    chosen, skipped = [], []
    runtimes: dict[str, tuple[str, ...]] = {}
    processors: dict[str, str] = {}
    foreign: set[str] = set()
    refuse_elsewhere(names)
    selected = select(names)
    compiled = tuple(profile for profile in selected if profile.backend)
    for profile in (profile for profile in selected if not profile.backend):
        runtimes[profile.name] = _runtimes(profile, host, wanted, formats)
        reasons = _cannot_execute(profile, host, runtimes[profile.name], model_format)
        processor = emulated(profile) if reasons or _exceeds(profile, host) else None
        can_emulate = set(EMULATED_RUNTIMES) & set(runtimes[profile.name])
        if processor and can_emulate:
            processors[profile.name] = processor
            if reasons:
                foreign.add(profile.name)
                runtimes[profile.name] = tuple(
                    r for r in runtimes[profile.name] if r in EMULATED_RUNTIMES
                )
            chosen.append(profile)
        elif not reasons:
            chosen.append(profile)
        elif profile.name in names:
            raise TargetError(
                f"The target {profile.name} cannot be executed on this machine.",
                why=f"It {'; it '.join(reasons)}; a variant that was never run proves nothing.",
                fix=f"{_emulate(profile, formats)}Convert on such a machine, or name the group "
                "cpu to make what runs here.",
            )
        else:
            remedy = _emulate(profile, formats).rstrip(". ")
            reason = "; ".join([*reasons, *([remedy] if remedy else [])])
            skipped.append(Skipped(target=profile.name, reason=reason))
    if not (chosen or compiled):
        raise TargetError(
            f"None of the targets in {', '.join(names)} can be executed on this machine.",
            why=" ".join(f"{s.target} {s.reason}." for s in skipped),
        )
    planned = Plan(
        targets=tuple(chosen),
        compiled=compiled,
        runtimes={profile.name: runtimes[profile.name] for profile in chosen},
        proxies=frozenset(p.name for p in chosen if _exceeds(p, host)),
        emulated=processors,
        foreign=frozenset(foreign),
        formats=formats,
        optional=optional,
        skipped=tuple(skipped),
    )
    for runtime in planned.all_runtimes:
        if formats[runtime] != model_format and runtime not in optional:
            require(CONVERTED[runtime][0])
    return planned


def _optional(asked: Collection[str]) -> frozenset[str]:
    """Runtimes that nobody asked for, and for which a model can be converted here."""
    return frozenset(
        runtime
        for runtime, toolchains in CONVERTED.items()
        if runtime not in asked and all(installed(name) for name in toolchains)
    )


def _formats(model_format: str, convertible: Collection[str]) -> dict[str, str]:
    """By runtime, the format of the files that it executes; those that can take none left out."""
    found = {}
    for name, runtime in known_runtimes().items():
        if model_format in getattr(runtime, "formats", ()):
            found[name] = model_format
        elif model_format == ONNX and name in CONVERTED and name in convertible:
            found[name] = TFLITE
    return found


def _emulate(profile: TargetProfile, formats: Mapping[str, str]) -> str:
    """The sentence about the toolchain that would execute a target; empty where none does."""
    if (
        emulation.is_ready(profile.architecture)
        or emulation.cpu_for(profile.architecture, profile.cpu_features) is None
        or not set(EMULATED_RUNTIMES) & set(formats)
    ):
        return ""
    name = _QEMU_NAMES.get(profile.architecture, profile.architecture)
    return f"Execute it under emulation: edgeml toolchain install emulate-{name}. "


def _check_runtimes(wanted: Sequence[str], host: Capabilities) -> None:
    installed = {runtime.name for runtime in host.runtimes}
    for name in wanted:
        if name not in known_runtimes():
            raise UserError(
                f"No runtime {name!r}.", why=f"Known are {', '.join(sorted(known_runtimes()))}."
            )
        if name not in installed:
            raise UserError(
                f"The runtime {name} is not installed.",
                why=f"Installed are {', '.join(sorted(installed)) or 'none'}.",
                fix=f"Install it: pip install {name}",
            )


def _runtimes(
    profile: TargetProfile, host: Capabilities, wanted: Sequence[str], formats: Mapping[str, str]
) -> tuple[str, ...]:
    return tuple(
        runtime.name
        for runtime in profile.runtimes
        if runtime.name in formats
        and runtime_fits(runtime, host)
        and (not wanted or runtime.name in wanted)
    )


def _cannot_execute(
    profile: TargetProfile, host: Capabilities, runtimes: Sequence[str], model_format: str = ONNX
) -> tuple[str, ...]:
    lacking = unmet(profile.requirements(), host)
    if lacking or runtimes:
        return lacking
    names = ", ".join(runtime.name for runtime in profile.runtimes) or "none"
    return (f"runs {model_format} files on none of the runtimes here (its profile names {names})",)


def _exceeds(profile: TargetProfile, host: Capabilities) -> bool:
    """Whether this machine has arithmetic that the target lacks, so that results may differ."""
    exact = {"avx512_vnni", "avx_vnni", "asimddp"}
    named = {name for feature in profile.cpu_features for name in feature.split("|")}
    return bool(exact & set(host.cpu.features)) and not exact & named
