"""What webhooks are told of rollouts: `dev.edgeml.rollout.started`, `.advanced`, `.halted`, ...

Each turning point is in the audit log; an event is written with the entry, so that there is one if
and only if it has happened.
"""

from collections.abc import Iterator

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from fleet.db import tables
from fleet.services import outbox
from fleet.services.context import Caller, Services
from fleet.services.rollout_rows import policy_of, state_of

EVENT = "dev.edgeml.rollout"
_PAST = {
    "create": "created",
    "start": "started",
    "approve": "approved",
    "advance": "advanced",
    "pause": "paused",
    "resume": "resumed",
    "halt": "halted",
    "abort": "aborted",
    "complete": "completed",
    "retry": "retried",
    "override": "overridden",
    "block": "blocked",
}
EVENTS = tuple(f"{EVENT}.{past}" for past in _PAST.values())


class RolloutTold(TypedDict):
    """The rollout as it is after what the event tells of; `wave` counts from 1.

    `release` and `version` are of a release, `revision` of a configuration; the other is null.
    `by` and `reason` are as in the audit log: of the controller the engine's sentence.
    """

    rollout: str
    model: str
    release: str | None
    version: str
    revision: str | None
    status: str
    wave: int
    waves: int
    by: str
    reason: str


def tell(services: Services, session: Session, caller: Caller, action: str, rollout: str) -> None:
    """Write the events of an audited action for the webhooks that want them."""
    row = session.get(tables.Rollout, rollout)
    if row is None:
        return
    state = state_of(row)
    for past in _happened(action, row):
        data: RolloutTold = {
            "rollout": row.id,
            "model": row.model,
            "release": row.release,
            "version": state.release_version,
            "revision": row.revision,
            "status": row.status,
            "wave": state.wave + 1,
            "waves": len(policy_of(row).waves),
            "by": caller.actor,
            "reason": caller.reason,
        }
        outbox.enqueue(services, session, f"{EVENT}.{past}", row.id, data)


def _happened(action: str, row: tables.Rollout) -> Iterator[str]:
    past = _PAST.get(action.removeprefix("rollout."))
    if past is not None:
        yield past
    if action == "rollout.create" and row.started_at is not None:
        yield _PAST["start"]
