"""One look at all devices of a rollout: how many stand how, by hardware class.

It is the only place that walks over every device, and it does so once, so that a decision over a
million of them takes seconds. What it gathers is counts, the few devices that something is to be
done with, and of each gate the worst.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts.groups import Due, Group, Left, Standing, standings
from fleet.rollouts.observe import DeviceObservation, Figure, RolloutState
from fleet.rollouts.policy import Metric, Policy
from fleet.rollouts.standing import (
    AT_REST,
    LATENCY,
    Failure,
    failure,
    is_beyond,
    is_refusing,
    latency_bound,
    tried_again_at,
)
from fleet.rollouts.units import Unit, reached_units, unit

_SEVERITY = {Verdict.FAIL: 0, Verdict.UNDECIDED: 1, Verdict.PASS: 2}


@dataclass(slots=True)
class Worst:
    """Of one gate or figure the worst device, and of how many."""

    rank: tuple[float, ...]
    device: str
    gate: GateResult | None = None
    figure: Figure | None = None
    n: int = 1


@dataclass(slots=True)
class Shown:
    """What the devices of a class have shown: the worst of each gate, the slowest, the figures.

    `beyond`, `within` and `unsure` count devices by metric.
    """

    gates: dict[str, Worst] = field(default_factory=dict)
    latency: Worst | None = None
    figures: dict[str, Worst] = field(default_factory=dict)
    beyond: Counter[str] = field(default_factory=Counter)
    within: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)

    def add(self, device: DeviceObservation, policy: Policy, metrics: Iterable[Metric]) -> None:
        """Take what one device shows."""
        for gate in device.gates:
            rank = (_SEVERITY[gate.result], _margin(gate))
            known = self.gates.get(gate.name)
            if known is None or (rank, device.device) < (known.rank, known.device):
                number = known.n + 1 if known else 1
                self.gates[gate.name] = Worst(rank, device.device, gate=gate, n=number)
            else:
                known.n += 1
            if gate.name == LATENCY and gate.value is not None and gate.baseline is not None:
                share = gate.value / latency_bound(gate, policy.gates)
                one = Worst((-share,), device.device, gate=gate)
                self.latency = _worse(self.latency, one)
        if not device.figures:
            return
        for metric in metrics:
            figure = device.figures.get(metric.name)
            if figure is None:
                continue
            beyond = is_beyond(figure, metric)
            count = self.unsure if beyond is None else self.beyond if beyond else self.within
            count[metric.name] += 1
            worst = Worst((_distance(figure, metric),), device.device, figure=figure)
            self.figures[metric.name] = _worse(self.figures.get(metric.name), worst)

    def merged(self, other: "Shown") -> "Shown":
        """What both have shown together."""
        both = Shown(
            latency=_worse(self.latency, other.latency) if other.latency else self.latency,
            beyond=self.beyond + other.beyond,
            within=self.within + other.within,
            unsure=self.unsure + other.unsure,
        )
        for mine, theirs, into in (
            (self.gates, other.gates, both.gates),
            (self.figures, other.figures, both.figures),
        ):
            into.update(mine)
            for name, one in theirs.items():
                into[name] = _worse(into.get(name), one)
        return both


@dataclass(slots=True)
class Class:
    """The devices of one hardware class that can take the release, by how they stand."""

    assigned: int = 0
    done: int = 0
    failed: int = 0
    crashed: int = 0
    fresh: list[DeviceObservation] = field(default_factory=list)
    good: Shown = field(default_factory=Shown)
    bad: Shown = field(default_factory=Shown)
    taken: int = 0  # fresh ones that the present wave reaches


@dataclass(slots=True)
class Survey:
    """All devices of a rollout at one moment; see the module.

    `due` may be given the release (again) at once, `cooling` after the cool-down; `flying` counts
    those on their way, whoever they are; `given_at` is when each was given it, for the rate.
    Where devices switch together, `units` are the groups that have a part in it, `unmet` counts the
    others that could have, and `taken_units` are those fresh devices that the wave reaches.
    """

    release: str = ""
    metrics: tuple[Metric, ...] = ()
    devices: int = 0
    flying: int = 0
    refused: int = 0
    classes: dict[str, Class] = field(default_factory=lambda: defaultdict(Class))
    failures: list[Failure] = field(default_factory=list)
    due: list[DeviceObservation] = field(default_factory=list)
    cooling: list[tuple[float, Failure]] = field(default_factory=list)
    moving: list[DeviceObservation] = field(default_factory=list)
    refusing: list[DeviceObservation] = field(default_factory=list)
    unfit: list[DeviceObservation] = field(default_factory=list)
    busy: list[DeviceObservation] = field(default_factory=list)
    given_at: list[float] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    units: set[Unit] = field(default_factory=set)
    taken_units: list[list[DeviceObservation]] = field(default_factory=list)
    unmet: int = 0

    @property
    def assigned(self) -> int:
        """Devices that were given the release and can take it."""
        return sum(c.assigned for c in self.classes.values())

    @property
    def able(self) -> int:
        """Devices that can take the release."""
        return sum(c.assigned + len(c.fresh) for c in self.classes.values())

    @property
    def done(self) -> int:
        """Devices that committed with evidence."""
        return sum(c.done for c in self.classes.values())

    @property
    def reached(self) -> int:
        """Devices of the present wave: all that are assigned, and the fresh ones it takes."""
        return sum(c.assigned + c.taken for c in self.classes.values())

    @property
    def able_units(self) -> int:
        """What waves count, in all: devices that can take the release, or groups of them."""
        return len(self.units) + self.unmet if self.units or self.unmet else self.able

    @property
    def reached_units(self) -> int:
        """What waves count, of the present wave."""
        if not (self.units or self.unmet):
            return self.reached
        return len(self.units | {unit(found[0]) for found in self.taken_units})

    @property
    def ungiven(self) -> int:
        """Devices of the present wave that were not given the release yet."""
        return sum(c.taken for c in self.classes.values())


def survey(
    policy: Policy,
    rollout: RolloutState,
    devices: Iterable[DeviceObservation],
    now: float,
    up_since: float,
) -> Survey:
    """Look at every device once."""
    seen = Survey(release=rollout.release, metrics=policy.gates.bounds())
    rated = policy.rate is not None
    classes = seen.classes
    number = 0
    others = _set_apart(seen, policy, rollout, devices, now=now, up_since=up_since)
    for device in others:
        number += 1
        assigned_at = device.assigned_at
        if assigned_at is None:
            if device.busy:
                seen.busy.append(device)
            elif device.variant:
                classes[device.hardware_class].fresh.append(device)
            else:
                seen.unfit.append(device)
            continue
        if device.phase not in AT_REST:
            seen.flying += 1
        if rated:
            seen.given_at.append(assigned_at)
        if device.busy:  # taken back, and another rollout has it by now
            seen.busy.append(device)
        elif is_refusing(device):
            seen.refusing.append(device)
        else:
            found = failure(device, rollout.release, policy, now, up_since)
            _assigned(seen, device, found, policy, now)
    seen.devices += number
    _take(seen, policy, rollout)
    return seen


def _set_apart(
    seen: Survey,
    policy: Policy,
    rollout: RolloutState,
    devices: Iterable[DeviceObservation],
    *,
    now: float,
    up_since: float,
) -> Iterable[DeviceObservation]:
    """Take the devices that stand otherwise than they would alone; returns the others."""
    if policy.together is None:
        return devices
    devices = list(devices)
    apart, seen.groups = standings(policy, rollout, devices, now, up_since)
    others = []
    for device in devices:
        how = apart.get(device.device)
        if how is None:
            others.append(device)
            continue
        seen.devices += 1
        if device.assigned_at is not None and policy.rate is not None:
            seen.given_at.append(device.assigned_at)
        _apart(seen, device, how, policy, now)
    return others


def _apart(
    seen: Survey, device: DeviceObservation, how: Standing, policy: Policy, now: float
) -> None:
    """Take a device that stands otherwise than it would alone, for its group."""
    match how:
        case Left(why=why):
            seen.unfit.append(msgspec.structs.replace(device, unfit=why))
        case Due():
            seen.classes[device.hardware_class].assigned += 1
            seen.units.add(unit(device))
            seen.due.append(device)
        case Failure():
            alone = msgspec.structs.replace(device, restored=False, again=False)
            _assigned(seen, alone, how, policy, now)


def _assigned(
    seen: Survey,
    device: DeviceObservation,
    found: Failure | None,
    policy: Policy,
    now: float,
) -> None:
    """Take one device that was given the release."""
    of_class = seen.classes[device.hardware_class]
    of_class.assigned += 1
    if policy.together is not None:
        seen.units.add(unit(device))
    if device.variant and (device.again or device.restored):
        seen.due.append(device)
        return
    if found is not None:
        again = tried_again_at(found, policy)
        if again is None:
            seen.failures.append(found)
            of_class.failed += 1
            of_class.crashed += found.kind.value == "crashed"
            of_class.bad.add(device, policy, seen.metrics)
        elif again <= now:
            seen.due.append(device)
        else:
            seen.cooling.append((again, found))
        return
    phase = device.phase
    if phase is Phase.REFUSED:
        seen.due.append(device)  # the plan gives it another variant now
        seen.refused += 1
        return
    if device.gates or device.figures:
        of_class.good.add(device, policy, seen.metrics)
    if phase is Phase.COMMITTED and (device.gates or device.previous == seen.release):
        of_class.done += 1
    else:
        seen.moving.append(device)


def _take(seen: Survey, policy: Policy, rollout: RolloutState) -> None:
    """Share the room of the present wave among the classes, in turn.

    So that a small wave meets as many classes as it can, those with fewer devices in the rollout
    come first.
    """
    if policy.together is not None:
        _take_units(seen, policy, rollout)
        return
    room = policy.wave(rollout.wave).size(seen.able) - seen.assigned if seen.able else 0
    classes = sorted(seen.classes.items())

    def taken(level: int) -> int:
        return sum(min(len(c.fresh), max(0, level - c.assigned)) for _, c in classes)

    low, high = 0, max((c.assigned + len(c.fresh) for _, c in classes), default=0)
    while low < high:  # the highest level to which all classes can be filled
        middle = (low + high + 1) // 2
        low, high = (middle, high) if taken(middle) <= room else (low, middle - 1)
    for _, c in classes:
        c.taken = min(len(c.fresh), max(0, low - c.assigned)) if room > 0 else 0
    left = max(0, room) - sum(c.taken for _, c in classes)
    for _, c in classes:
        if left and c.assigned <= low and c.taken < len(c.fresh):
            c.taken += 1
            left -= 1


def _take_units(seen: Survey, policy: Policy, rollout: RolloutState) -> None:
    """As `_take`, in whole groups."""
    fresh = [device for of_class in seen.classes.values() for device in of_class.fresh]
    seen.taken_units = reached_units(policy, rollout.wave, seen.units, fresh)
    seen.unmet = len({unit(device) for device in fresh} - seen.units)
    for found in seen.taken_units:
        for device in found:
            seen.classes[device.hardware_class].taken += 1


def _worse(known: Worst | None, one: Worst) -> Worst:
    """The worse of two, by rank and then by name; it stands for both."""
    if known is None:
        return one
    worse = one if (one.rank, one.device) < (known.rank, known.device) else known
    worse.n = known.n + one.n
    return worse


def _margin(gate: GateResult) -> float:
    """How far a gate's value is from its bound, relative to it; what has no bound is far."""
    if gate.value is None or gate.bound is None:
        return float("inf")
    return abs(gate.value - gate.bound) / max(abs(gate.bound), 1e-9)


def _distance(figure: Figure, metric: Metric) -> float:
    """How far within its bounds a figure is; negative beyond them."""
    return min(
        *([metric.max - figure.value] if metric.max is not None else []),
        *([figure.value - metric.min] if metric.min is not None else []),
        float("inf"),
    )
