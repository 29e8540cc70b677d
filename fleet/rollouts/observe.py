"""What a decision is made of and what it says: plain values."""

from enum import StrEnum

import msgspec

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from cloud_sync.windows import UpdateWindow


class RolloutStatus(StrEnum):
    """Where a rollout stands."""

    DRAFT = "draft"  # an operator starts it
    RUNNING = "running"
    PAUSED = "paused"  # by an operator, or by a gate whose failure pauses
    HALTED = "halted"  # a gate failed; the failure policy is carried out
    ABORTED = "aborted"  # an operator ended it
    COMPLETED = "completed"


ENDED = frozenset({RolloutStatus.HALTED, RolloutStatus.ABORTED, RolloutStatus.COMPLETED})


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Someone let a wave (from 0) begin."""

    wave: int
    by: str
    at: float
    reason: str = ""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Someone let a gate of a wave pass that had this result, and wrote why."""

    gate: str
    wave: int
    result: Verdict
    by: str
    at: float
    reason: str


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """What is persisted of a rollout: all that `decide` remembers.

    `wave` counts from 0; `wave_held_since` is since when all of its devices have committed
    and its gates held. `model` is `:configuration` where a configuration is rolled out, and
    `release` then the digest of that. `started_by` is who had a draft begin.
    """

    id: str
    model: str
    release: str
    release_version: str
    status: RolloutStatus = RolloutStatus.RUNNING
    wave: int = 0
    wave_held_since: float | None = None
    reason: str = ""
    approvals: tuple[Approval, ...] = ()
    overrides: tuple[Override, ...] = ()
    started_by: str = ""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A measured figure of a device, on `n` samples; `low` and `high` where it is uncertain."""

    value: float
    n: int = 1
    low: float | None = None
    high: float | None = None


class DeviceObservation(msgspec.Struct, frozen=True, kw_only=True):
    """One selected device as the fleet knows it.

    `variant` is what the plan resolves for it ("" where nothing fits; `unfit` says why).
    `assigned_variant` and `assigned_at` are set once this rollout gave it the release;
    `restored` once it was taken back. `phase`, `reason` and `cause` are what the device reported of
    this release, None while it has not. `gates` are those of its evidence for this release.
    `previous` is the release it ran before ("" for none); `last_seen` is when it last spoke.
    `tries` counts the attempts that this rollout made, `settled_at` is when the last one ended, and
    `again` is set while an operator wants another. `figures` are what it measured, by metric;
    `utc_offset_s` is how far its clock is ahead of UTC. `group` is the label's value where devices
    switch together; `until` is how far this one is let go ("" to the end), since `until_at`.
    `windows` are those of its own configuration, outside of which it begins no update.
    """

    device: str
    hardware_class: str
    variant: str = ""
    unfit: str = ""
    assigned_variant: str = ""
    assigned_at: float | None = None
    restored: bool = False
    phase: Phase | None = None
    reason: str = ""
    cause: str = ""
    gates: tuple[GateResult, ...] = ()
    previous: str = ""
    busy: bool = False  # another rollout of this model has it, and this one (any more) not
    last_seen: float | None = None
    tries: int = 1
    again: bool = False
    settled_at: float | None = None
    utc_offset_s: int | None = None
    figures: dict[str, Figure] = {}
    group: str = ""
    until: str = ""
    until_at: float | None = None
    windows: tuple[UpdateWindow, ...] = ()


class Assign(msgspec.Struct, frozen=True, kw_only=True, tag="assign"):
    """Give the device the release, as this variant; one of a group goes `until` there."""

    device: str
    variant: str
    group: str = ""
    until: str = ""


class Restore(msgspec.Struct, frozen=True, kw_only=True, tag="restore"):
    """Want of the device again what it ran before."""

    device: str


class Advance(msgspec.Struct, frozen=True, kw_only=True, tag="advance"):
    """The wave held its gates: the next begins."""

    wave: int


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag="hold"):
    """The wave holds its gates since then: the soak begins; None ends it, since it does not."""

    since: float | None


class Complete(msgspec.Struct, frozen=True, kw_only=True, tag="complete"):
    """The last wave held its gates."""


class Halt(msgspec.Struct, frozen=True, kw_only=True, tag="halt"):
    """A gate failed."""

    reason: str


class Pause(msgspec.Struct, frozen=True, kw_only=True, tag="pause"):
    """A gate failed, and the policy wants an operator to look."""

    reason: str


class Proceed(msgspec.Struct, frozen=True, kw_only=True, tag="proceed"):
    """Let devices of a group go on until there ("" to the end).

    They switch at `at`, 0 at once, and those that have not at `by` do not; 0 has no end.
    """

    group: str
    devices: tuple[str, ...]
    until: str
    at: float = 0.0
    by: float = 0.0
    reason: str


class Retreat(msgspec.Struct, frozen=True, kw_only=True, tag="retreat"):
    """Want of all devices of a group again what they ran before."""

    group: str
    devices: tuple[str, ...]
    reason: str


class Block(msgspec.Struct, frozen=True, kw_only=True, tag="block"):
    """No device of this hardware class is to be given the release any more."""

    hardware_class: str
    reason: str


Action = Assign | Restore | Proceed | Retreat | Advance | Hold | Complete | Halt | Pause | Block


class Waiting(StrEnum):
    """What a rollout waits for."""

    NOTHING = ""
    START = "start"
    START_TIME = "start-time"
    APPROVAL = "approval"
    WINDOW = "window"
    RATE = "rate"
    COOL_DOWN = "cool-down"
    DEVICES = "devices"
    GATE = "gate"
    SOAK = "soak"
    OPERATOR = "operator"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do now, why in one sentence, and the gates with their numbers.

    `waits_for` names what has to come before it goes on, `until` when that is known to come.
    """

    actions: tuple[Action, ...]
    sentence: str
    gates: tuple[GateResult, ...]
    waits_for: Waiting = Waiting.NOTHING
    until: float | None = None
