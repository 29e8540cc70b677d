"""What there is to convert for, and how far this machine can: what `edgeml targets` shows."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cloud_sync.evidence import Verification
from converters.backends import backend
from converters.backends.interface import require_here
from converters.backends.pages import WRITTEN, page
from converters.backends.support import message
from converters.plan import plan
from converters.result import alike
from converters.toolchains.store import installed
from edgeml.errors import EdgemlError, TargetError
from hardware.capabilities import Capabilities
from hardware.probes import probe
from hardware.profiles import TargetProfile, is_group, profiles, select

_CPU = "the file itself, on a runtime of the target"


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A toolchain that a target needs, or some of its options, and whether it is here."""

    name: str
    installed: bool


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A target as this machine sees it.

    Attributes:
        ready: whether a variant can be made here; `reason` says why not, and what to do.
        executes: what answers here in the device's place.
        verification: how far a variant is checked by that, if it can be made; the strongest of its
            runtimes.
    """

    name: str
    description: str
    backend: str = ""
    runtimes: tuple[str, ...] = ()
    toolchains: tuple[Tool, ...] = ()
    ready: bool
    reason: str = ""
    executes: str = ""
    verification: str = ""


def listing(names: Sequence[str] = ()) -> tuple[Target, ...]:
    """The targets of these names and groups; all without a name.

    Raises:
        TargetError: there is no such target, or a plug-in cannot be loaded.
    """
    chosen = select(names) if names else tuple(profiles().values())
    host = probe()
    return tuple(_compiled(each) if each.backend else _executed(each, host) for each in chosen)


def _compiled(profile: TargetProfile) -> Target:
    serving = backend(profile.backend)
    proof = getattr(serving, "proof", None)
    reason = ""
    try:
        require_here(serving, profile, {})
    except EdgemlError as error:
        reason = str(error).rstrip(".")
    return Target(
        name=profile.name,
        description=profile.description,
        backend=profile.backend,
        runtimes=tuple(runtime.name for runtime in profile.runtimes),
        toolchains=tuple(
            Tool(name=name, installed=installed(name) is not None)
            for name in (*serving.toolchains, *getattr(serving, "optional_toolchains", ()))
        ),
        ready=not reason,
        reason=reason,
        executes=proof.executes if proof else "",
        verification=str(proof.verification) if proof else "",
    )


def _executed(profile: TargetProfile, host: Capabilities) -> Target:
    """A target whose variants race here, or under an emulator."""
    known = {
        "name": profile.name,
        "description": profile.description,
        "runtimes": tuple(runtime.name for runtime in profile.runtimes),
    }
    try:
        planned = plan((profile.name,), host)
    except TargetError as error:
        return Target(**known, ready=False, reason=str(error).rstrip("."))  # type: ignore[arg-type] # mypy takes the values for each field's
    levels = {planned.verification_of(profile, r) for r in planned.runtimes_of(profile)}
    strongest = min(levels, key=list(Verification).index)
    emulated = planned.emulated.get(profile.name)
    executes = f"the file itself, on an emulated {emulated}" if emulated else _CPU
    return Target(**known, ready=True, executes=executes, verification=strongest)  # type: ignore[arg-type] # as above


def listing_text(targets: Sequence[Target]) -> str:
    """The targets as a table, and below it what is missing for which."""
    width = max(len(target.name) for target in targets)
    level = max(len(target.verification) for target in targets)
    lines = [f"{'target':<{width}}  here  {'checked as':<{level}}  what it is"]
    lines += [
        f"{t.name:<{width}}  {'yes' if t.ready else 'no':<4}  {t.verification or '-':<{level}}  "
        f"{t.description}"
        for t in targets
    ]
    missing = alike((t.name, t.reason) for t in targets if t.reason)
    lines += [""] if missing else []
    lines += [f"{', '.join(names)}: {reason}." for reason, names in missing]
    return "\n".join([*lines, "", "What one runs: edgeml targets TARGET"])


def details(name: str) -> dict[str, Any]:
    """All there is to say about a target: its state here; of a compiled one, options and rules."""
    [target] = listing([name])
    profile = profiles()[name]
    serving = backend(profile.backend) if profile.backend else None
    rules = serving.constraints(profile) if serving else {}
    more = {"settings": profile.settings, "options": list(getattr(serving, "options", ()))}
    said = {operator: [message(each) for each in rules[operator]] for operator in rules}
    return {**msgspec.to_builtins(target), **more, "constraints": said}


def details_text(name: str) -> str:
    """The same for people: the target's page, and below it its state here."""
    [target] = listing([name])
    profile = profiles()[name]
    written = page(profile).replace(f"{WRITTEN}\n\n", "") if profile.backend else ""
    about = written or f"# {name}\n\n{profile.description}.\n"
    said = [
        f"- {tool.name}: {'' if tool.installed else 'not '}installed" for tool in target.toolchains
    ]
    said += [f"- Not possible: {target.reason}."] if target.reason else []
    said += [f"- Executed here: {target.executes}."] if target.ready and target.executes else []
    said += [f"- Verification level: {target.verification}."] if target.verification else []
    return "\n".join([about, "## On this machine", "", *said])


def is_one(names: Sequence[str]) -> bool:
    """Whether one target was asked for, no group."""
    return len(names) == 1 and not is_group(names[0])
