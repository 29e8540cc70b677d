"""Rollouts: policy in, observations in, actions out; nothing here reads or writes."""

from fleet.rollouts.decide import decide
from fleet.rollouts.observe import (
    Action,
    Advance,
    Assign,
    Complete,
    Decision,
    DeviceObservation,
    Halt,
    Restore,
    RolloutState,
    RolloutStatus,
)
from fleet.rollouts.policy import Policy, parse_policy

__all__ = [
    "Action",
    "Advance",
    "Assign",
    "Complete",
    "Decision",
    "DeviceObservation",
    "Halt",
    "Policy",
    "Restore",
    "RolloutState",
    "RolloutStatus",
    "decide",
    "parse_policy",
]
