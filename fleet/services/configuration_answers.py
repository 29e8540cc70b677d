"""What devices say of the configuration that a rollout gave them; every hello may tell."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.messages import DesiredState, Phase, ReportedState
from fleet.db import tables


def note(
    session: Session, device: str, said: ReportedState, held: DesiredState | None, now: float
) -> None:
    """Note what a device says of the configuration that a rollout gave it.

    Args:
        session: a writing one.
        device: its id.
        said: what it reports.
        held: the desired state that it holds, which tells what its error speaks of.
        now: Unix seconds.
    """
    if held is None or not held.configuration.config_version:
        return
    place, rollout = tables.Assignment, tables.Rollout
    query = (
        select(place)
        .join(rollout, rollout.id == place.rollout)
        .where(
            place.device == device,
            place.restored_at.is_(None),
            rollout.revision.is_not(None),
            rollout.finished_at.is_(None),
        )
    )
    for row in session.scalars(query):
        if held.configuration.config_version < row.attempt:
            continue
        phase, reason = _answer(said, row.attempt)
        if (row.phase, row.reason) != (phase, reason):
            row.phase, row.reason, row.phase_at = str(phase), reason, now


def _answer(said: ReportedState, version: int) -> tuple[Phase, str]:
    if said.config_version >= version:
        return Phase.COMMITTED, ""
    if said.config_error:
        return Phase.ROLLED_BACK, said.config_error[:2000]
    return Phase.TRIAL, ""
