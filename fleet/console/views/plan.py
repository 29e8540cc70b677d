"""A rollout's plan before it begins: who gets what, who nothing and why, bytes, money. Pure."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from fleet.commands.forecast import waves
from fleet.console.views.wording import plural, size
from fleet.resources import Plan, PlannedDevice
from fleet.rollouts import Policy


class WaveLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a wave adds: `classes` are hardware classes and their devices, the largest first."""

    number: int
    label: str
    devices: int
    classes: tuple[tuple[str, int], ...]


class ClassLine(msgspec.Struct, frozen=True, kw_only=True):
    """A hardware class: how many devices get which variant, and how many nothing."""

    name: str
    gets: tuple[tuple[str, int], ...]
    nothing: int


class DeviceLine(msgspec.Struct, frozen=True, kw_only=True):
    """A device: what it gets in which wave and what that costs, or why nothing."""

    device: str
    hardware_class: str
    wave: str
    gets: str
    bytes: str
    money: str
    why: str
    group: str  # `gets`, `waits` or `nothing`


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `facts` are figures with their names."""

    headline: str
    tone: str
    facts: tuple[tuple[str, str], ...]
    waves: tuple[WaveLine, ...]
    classes: tuple[ClassLine, ...]
    reasons: tuple[tuple[str, int], ...]
    devices: tuple[DeviceLine, ...]


def plan_view(plan: Plan, policy: Policy, taken: Mapping[str, str]) -> PlanView:
    """The plan as it is shown.

    Args:
        plan: with all devices.
        policy: its waves.
        taken: devices that other rollouts of the model have, and which.
    """
    added = waves(policy, plan, taken)
    wave_of = {device: number for number, names in enumerate(added, 1) for device in names}
    classes = {device["device"]: device["hardware_class"] for device in plan["devices"]}
    reached = sum(map(len, added))
    return PlanView(
        headline=_headline(plan, reached, len(taken.keys() & classes.keys())),
        tone="good" if reached and not plan["unfitting"] else "warn",
        facts=tuple(_facts(plan)),
        waves=tuple(
            WaveLine(
                number=number,
                label=str(policy.waves[number - 1]),
                devices=len(names),
                classes=tuple(Counter(classes[name] for name in names).most_common()),
            )
            for number, names in enumerate(added, 1)
        ),
        classes=tuple(_class(name, counts) for name, counts in plan["by_class"].items()),
        reasons=tuple(plan["reasons"].items()),
        devices=tuple(
            _device(device, wave_of.get(device["device"], 0), taken, plan["currency"])
            for device in plan["devices"]
        ),
    )


def money(amount: float | None, currency: str) -> str:
    """`26.00 EUR`; where there is no price, that."""
    return "no price set" if amount is None else f"{amount:,.2f} {currency}"


def _headline(plan: Plan, reached: int, busy: int) -> str:
    selected = plan["fitting"] + plan["unfitting"]
    name = f"{plan['model']}:{plan['version']}"
    if not selected:
        return "The selector chooses no device: nobody would be given anything."
    text = f"{name} reaches {reached:,} of {plural(selected, 'device')}"
    if plan["unfitting"]:
        text += f"; {plan['unfitting']:,} get nothing"
    if busy:
        text += f"; another rollout has {busy:,}"
    return f"{text}."


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "To fetch", size(plan["bytes"])
    yield "On the network, about", size(plan["cost_bytes"])
    yield "Money, about", money(plan["money"], plan["currency"])
    if plan["over_budget"]:
        yield "Wait for their data budget", plural(plan["over_budget"], "device")


def _class(name: str, counts: Mapping[str, int]) -> ClassLine:
    gets = [(variant, number) for variant, number in counts.items() if variant != "nothing fits"]
    return ClassLine(name=name, gets=tuple(sorted(gets)), nothing=counts.get("nothing fits", 0))


def _device(
    device: PlannedDevice, wave: int, taken: Mapping[str, str], currency: str
) -> DeviceLine:
    if device["variant"] is None:
        group, why = "nothing", device["reason"]
    elif device["device"] in taken:
        group, why = "waits", f"The rollout {taken[device['device']]} has it."
    else:
        group = "gets" if device["in_budget"] else "waits"
        why = "" if device["in_budget"] else device["reason"]
    gets = " ".join(filter(None, (device["target"], device["precision"])))
    gets += f", {device['verification']}" if device["verification"] else ""
    return DeviceLine(
        device=device["device"],
        hardware_class=device["hardware_class"] or "unknown hardware",
        wave=str(wave or ""),
        gets=gets or "nothing",
        bytes=size(device["bytes"]) if device["variant"] else "",
        money="" if device["money"] is None else money(device["money"], currency),
        why=why,
        group=group,
    )


def chosen(lines: Sequence[DeviceLine], groups: Collection[str], text: str) -> list[DeviceLine]:
    """The devices of some groups whose name or hardware class has a text in it."""
    return [
        line
        for line in lines
        if line.group in groups and (text in line.device or text in line.hardware_class)
    ]
