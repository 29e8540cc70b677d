"""Rows of rollouts, and the engine's own values in them."""

from collections.abc import Collection

import msgspec
from sqlalchemy.orm import Session

from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.rollouts import Decision, Policy, RolloutState, RolloutStatus
from fleet.services.context import Caller


def get(session: Session, rollout: str, *, lock: bool = False) -> tables.Rollout:
    """The row of a rollout.

    Raises:
        NotFound: there is none such.
    """
    row = session.get(tables.Rollout, rollout, with_for_update=True if lock else None)
    if row is None:
        raise NotFound(
            f"There is no rollout {rollout[:64]!r}.", fix="See them all: edgeml rollout list"
        )
    return row


def policy_of(row: tables.Rollout) -> Policy:
    """A rollout's policy."""
    return msgspec.json.decode(row.policy, type=Policy)


def state_of(row: tables.Rollout) -> RolloutState:
    """A rollout's state, as the engine keeps it."""
    return msgspec.json.decode(row.state, type=RolloutState)


def decision_of(row: tables.Rollout) -> Decision:
    """The engine's last decision; its gates are those that counted."""
    return msgspec.json.decode(row.decision, type=Decision)


def encoded(decision: Decision) -> str:
    """A decision as the row keeps it."""
    return msgspec.json.encode(decision).decode()


def keep(row: tables.Rollout, state: RolloutState, decision: Decision) -> None:
    """Keep a state and the decision behind it; a decision without gates leaves the last ones."""
    if not decision.gates:
        decision = msgspec.structs.replace(decision, gates=decision_of(row).gates)
    for name, value in (
        ("status", str(state.status)),
        ("state", msgspec.json.encode(state).decode()),
        ("decision", encoded(decision)),
    ):
        if getattr(row, name) != value:
            setattr(row, name, value)


def require_status(state: RolloutState, verb: str, allowed: Collection[RolloutStatus]) -> None:
    """Refuse a verb that a rollout's status does not allow.

    Raises:
        Conflict: it does not.
    """
    if state.status not in allowed:
        raise Conflict(
            f"The rollout {state.id} cannot be changed so ({verb}).",
            why=f"It is {state.status}; that wants one that is "
            f"{' or '.join(status for status in RolloutStatus if status in allowed)}.",
            fix=_instead(state),
        )


def _instead(state: RolloutState) -> str:
    """What an operator may do with a rollout as it stands."""
    match state.status:
        case RolloutStatus.DRAFT:
            return f"Start it: edgeml rollout start {state.id}"
        case RolloutStatus.PAUSED:
            return f"Resume or end it: edgeml rollout resume {state.id}, or abort"
        case RolloutStatus.RUNNING:
            return f"Pause or abort it, or see what it does: edgeml rollout explain {state.id}"
    if state.model.startswith(":"):
        return "Roll the change out again: edgeml devices configuration rollout --help"
    name = f"{state.model}:{state.release_version}"
    return f"It has ended. Begin another: edgeml rollout create {name}"


def told(past: str, caller: Caller) -> str:
    """What was done, by whom and why: `Paused by anna: lunch.`."""
    reason = f"{past} by {caller.actor}" + (f": {caller.reason}" if caller.reason else "")
    return f"{reason.rstrip('.')}."
