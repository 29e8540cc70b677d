"""Which targets a conversion makes, given what this machine can execute."""

from collections.abc import Sequence

import msgspec

from converters.result import Skipped
from edgeml.errors import TargetError
from hardware.capabilities import Capabilities
from hardware.profiles import TargetProfile, select
from hardware.requirements import unmet

RUNTIME = "onnxruntime"  # what executes candidates here


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Targets to convert for, and those of a group that were left out."""

    targets: tuple[TargetProfile, ...]
    skipped: tuple[Skipped, ...]


def plan(names: Sequence[str], host: Capabilities) -> Plan:
    """Choose the targets that can be executed here.

    Raises:
        TargetError: a target is not known, one that was named exactly cannot be executed
            here, or none of a group can.
    """
    chosen, skipped = [], []
    for profile in select(names):
        reasons = _cannot_execute(profile, host)
        if not reasons:
            chosen.append(profile)
        elif profile.name in names:
            raise TargetError(
                f"The target {profile.name} cannot be executed on this machine.",
                why=f"It {'; it '.join(reasons)}; a variant that was never run proves nothing.",
                fix="Convert on such a machine, or name the group cpu to make what runs here.",
            )
        else:
            skipped.append(Skipped(target=profile.name, reason="; ".join(reasons)))
    if not chosen:
        raise TargetError(
            f"None of the targets in {', '.join(names)} can be executed on this machine.",
            why=" ".join(f"{s.target} {s.reason}." for s in skipped),
        )
    return Plan(targets=tuple(chosen), skipped=tuple(skipped))


def _cannot_execute(profile: TargetProfile, host: Capabilities) -> tuple[str, ...]:
    if not any(runtime.name == RUNTIME for runtime in profile.runtimes):
        return (f"runs on none of the runtimes that execute candidates here ({RUNTIME})",)
    return unmet(profile.requirements(), host)
