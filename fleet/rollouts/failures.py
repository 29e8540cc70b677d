"""What a failure is, how often a device is tried again after one, and how many are too many.

[retries]                    # how often a device is tried again after a failure of a kind
timed_out = 2
rolled_back = 1
cool_down_s = 600            # and how long after the failure

[[thresholds]]               # when the rollout stops
failures = "any"             # or one kind of failure, or "refused"
percent = 10                 # of the devices that have finished ...
minimum = 20                 # ... once there are so many
action = "halt"              # or "pause"
"""

import re
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cloud_sync.messages import RollbackCause

# How the sentence of an agent that names no cause tells that the process died.
_CRASH = re.compile(r"\bcrash|\bhad to start\b|\bdied\b|\bkilled\b|\bsignal\b", re.IGNORECASE)
Times = Annotated[int, Meta(ge=0, le=10)]


class FailureKind(StrEnum):
    """Kinds of failure, for which retries and thresholds may differ."""

    ROLLED_BACK = "rolled_back"  # the device went back by itself
    CRASHED = "crashed"  # it did so since the process died
    TIMED_OUT = "timed_out"  # it has not committed in time
    NO_EVIDENCE = "no_evidence"  # it says that it committed and shows nothing
    GATE = "gate"  # it committed, and a gate fails


def kind_of_rollback(reason: str, cause: str) -> FailureKind:
    """Whether a device rolled back since the release crashed.

    It says so by the `cause`; one that is too old for that (empty) by its sentence.

    >>> str(kind_of_rollback("after a crash course, 3 % of 60 were sure", "gate"))
    'rolled_back'
    """
    crashed = cause == RollbackCause.CRASHED if cause else _CRASH.search(reason) is not None
    return FailureKind.CRASHED if crashed else FailureKind.ROLLED_BACK


class Retries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a device is tried again, by the kind of its last failure."""

    rolled_back: Times = 0
    crashed: Times = 0
    timed_out: Times = 0
    no_evidence: Times = 0
    gate: Times = 0
    cool_down_s: Annotated[float, Meta(ge=0)] = 600.0

    def after(self, kind: FailureKind) -> int:
        """How often a device is tried again after such a failure."""
        times: int = getattr(self, kind.value)
        return times


class Threshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rollout stops when so many of the devices that have finished failed in such a way."""

    failures: Literal[
        "any", "rolled_back", "crashed", "timed_out", "no_evidence", "gate", "refused"
    ] = "any"
    percent: Annotated[float, Meta(ge=0, lt=100)]
    minimum: Annotated[int, Meta(ge=1)] = 1
    action: Literal["halt", "pause"] = "halt"

    @property
    def name(self) -> str:
        """The name of its gate: `devices.timed_out`."""
        return f"devices.{self.failures}"
