"""What a decision is made of and what it says: plain values."""

from enum import StrEnum

import msgspec

from cloud_sync.evidence import GateResult
from cloud_sync.messages import Phase


class RolloutStatus(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"  # a gate failed; the failure policy is carried out
    ABORTED = "aborted"  # an operator ended it
    COMPLETED = "completed"


ENDED = frozenset({RolloutStatus.HALTED, RolloutStatus.ABORTED, RolloutStatus.COMPLETED})


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """What is persisted of a rollout: all that `decide` remembers.

    `wave` counts from 0; `wave_held_since` is since when all of its devices have committed
    and its gates held.
    """

    id: str
    model: str
    release: str
    release_version: str
    status: RolloutStatus = RolloutStatus.RUNNING
    wave: int = 0
    wave_held_since: float | None = None
    reason: str = ""


class DeviceObservation(msgspec.Struct, frozen=True, kw_only=True):
    """One selected device as the fleet knows it.

    `variant` is what the plan resolves for it ("" where nothing fits; `unfit` says why).
    `assigned_variant` and `assigned_at` are set once this rollout gave it the release;
    `restored` once it was taken back. `phase` and `reason` are what the device reported of
    this release, None while it has not. `gates` are those of its evidence for this release.
    `previous` is the release it ran before ("" for none); `last_seen` is when it last spoke.
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
    gates: tuple[GateResult, ...] = ()
    previous: str = ""
    busy: bool = False  # another rollout of this model has it
    last_seen: float | None = None


class Assign(msgspec.Struct, frozen=True, kw_only=True, tag="assign"):
    """Give the device the release, as this variant."""

    device: str
    variant: str


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


Action = Assign | Restore | Advance | Hold | Complete | Halt


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do now, why in one sentence, and the gates with their numbers."""

    actions: tuple[Action, ...]
    sentence: str
    gates: tuple[GateResult, ...]
