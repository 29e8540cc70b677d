"""Who the simulated devices are: class, latency, fault of each, drawn from a seed. Pure.

The same seed, classes and faults make the same devices, whatever order they do things in: each
has a source of randomness of its own.

    >>> kinds = read_classes()
    >>> a, b = (populate(100, kinds, {Fault.SLOW: 0.1}, seed=7) for _ in range(2))
    >>> a == b, sum(member.fault is Fault.SLOW for member in a)
    (True, 10)
"""

import math
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from edgeml.errors import UserError
from fleet.simulator.hardware_classes import HardwareClass, read_classes

__all__ = ["Fault", "Member", "parse_faults", "populate", "read_classes"]

MAX_DEVICES = 100_000


class Fault(StrEnum):
    """What is wrong with a device; the docstring of each is in `FAULTS`."""

    FAILS_TEST = "fails-test"
    CRASHES = "crashes"
    SLOW = "slow"
    VANISHES = "vanishes"
    LATE = "late"
    LIES = "lies"
    REFUSES = "refuses"
    SMALL_BUDGET = "small-budget"
    CLOCK_OFF = "clock-off"


FAULTS: Mapping[Fault, str] = {
    Fault.FAILS_TEST: "its golden outputs differ: the test fails, it rolls back",
    Fault.CRASHES: "the agent crashes again and again in the trial, it rolls back",
    Fault.SLOW: "the new release is five times slower than the one before, it rolls back",
    Fault.VANISHES: "it is gone in mid-download and never comes back",
    Fault.LATE: "it is gone in mid-download and comes back after --late-s",
    Fault.LIES: "what it sends of a release is signed with another key: the fleet refuses it",
    Fault.REFUSES: "it refuses what it is given, with a reason",
    Fault.SMALL_BUDGET: "it has 100 kB for updates, and waits for more",
    Fault.CLOCK_OFF: "its clock is 400 days behind, until the fleet has told it the time",
}


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One device of the population; `pace` is its latency over its class's median."""

    device: str
    kind: HardwareClass
    fault: Fault | None
    pace: float
    seed: int


def parse_faults(pairs: Sequence[str]) -> dict[Fault, float]:
    """Shares from `slow=0.05` or `slow=5%`.

    >>> parse_faults(["slow=5%", "lies=0.01"])
    {<Fault.SLOW: 'slow'>: 0.05, <Fault.LIES: 'lies'>: 0.01}

    Raises:
        UserError: a fault is not known, a share is none, or they are more than all.
    """
    found: dict[Fault, float] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            fault = Fault(name)
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            fault, share = None, -1.0
        if fault is None or not equals or not 0 <= share <= 1:
            raise UserError(
                f"{pair[:80]!r} is no fault with its share.",
                why=f"Known are: {', '.join(Fault)}.",
                fix="Write --fault slow=5%; it may be given again.",
            )
        found[fault] = share
    if sum(found.values()) > 1:
        raise UserError("The shares of the faults add up to more than all devices.")
    return found


def populate(
    number: int,
    kinds: Sequence[HardwareClass],
    faults: Mapping[Fault, float],
    *,
    seed: int,
    prefix: str = "sim",
) -> list[Member]:
    """So many devices, named `sim-00000` and on; classes and faults have their exact shares.

    Raises:
        UserError: there are none, or too many.
    """
    if not 1 <= number <= MAX_DEVICES:
        raise UserError(
            f"{number} devices cannot be simulated.", why=f"From 1 to {MAX_DEVICES} can."
        )
    chance = random.Random(seed)  # noqa: S311 -- a simulation is to be repeatable
    total = sum(kind.share for kind in kinds)
    dealt_kinds = _dealt(number, [kind.share / total for kind in kinds], chance)
    dealt_faults = _dealt(number, list(faults.values()), chance)
    wrong: list[Fault | None] = [*faults, None]
    width = max(5, len(str(number - 1)))
    return [
        _member(
            f"{prefix}-{index:0{width}}", kinds[min(kind, len(kinds) - 1)], wrong[fault], chance
        )
        for index, (kind, fault) in enumerate(zip(dealt_kinds, dealt_faults, strict=True))
    ]


def _member(device: str, kind: HardwareClass, fault: Fault | None, chance: random.Random) -> Member:
    """One device; about two of three are within the class's spread of its median latency."""
    return Member(
        device=device,
        kind=kind,
        fault=fault,
        pace=chance.lognormvariate(0.0, math.log(kind.spread)),
        seed=chance.getrandbits(32),
    )


def _dealt(number: int, shares: Sequence[float], chance: random.Random) -> list[int]:
    """A shuffled list in which each index of `shares` has its share; the rest has the next one."""
    found: list[int] = []
    reached = 0.0
    for index, share in enumerate(shares):
        reached += share * number
        found += [index] * (round(reached) - len(found))
    found = found[:number] + [len(shares)] * (number - len(found))
    chance.shuffle(found)
    return found
