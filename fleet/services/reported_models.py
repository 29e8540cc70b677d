"""What devices said of each model, as rows: the last word, and a rollout's place by it."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.messages import Phase, ReportedModel, ReportedSource, ReportedState
from fleet.db import tables
from fleet.services.columns import fit

SETTLED = frozenset({Phase.COMMITTED, Phase.REFUSED, Phase.ROLLED_BACK})
_DIGEST = 71
_MAX_INT = 2**31 - 1


def states_of(session: Session, rows: Sequence[tables.Device]) -> dict[str, ReportedState]:
    """What devices last said of themselves; one that never said hello is left out."""
    heard = [row for row in rows if row.last_seen is not None and row.capabilities]
    table = tables.ReportedModel
    query = select(table).where(table.device.in_([row.id for row in heard]))
    models: dict[str, dict[str, ReportedModel]] = {}
    for said in session.scalars(query.order_by(table.device, table.model)):
        models.setdefault(said.device, {})[said.model] = model_of(said)
    return {
        row.id: ReportedState(
            desired_epoch=row.reported_epoch,
            desired_counter=row.reported_counter,
            config_version=row.reported_config_version,
            config_error=row.config_error,
            models=models.get(row.id, {}),
            sources=msgspec.json.decode(row.sources, type=dict[str, ReportedSource]),
        )
        for row in heard
    }


def model_of(row: tables.ReportedModel) -> ReportedModel:
    """A row as the device said it."""
    return ReportedModel(
        phase=Phase(row.phase),
        running_release=row.running_release,
        running_variant=row.running_variant,
        running_version=row.running_version,
        release=row.release,
        variant=row.variant,
        release_version=row.release_version,
        rollout=row.rollout,
        attempt=row.attempt,
        reason=row.reason,
        cause=row.cause,
    )


def apply_model(
    session: Session,
    row: tables.ReportedModel | None,
    device: str,
    model: str,
    said: ReportedModel,
    *,
    stream: str,
    now: float,
    snapshot: bool,
) -> tables.ReportedModel:
    """Keep what a device said of one model; returns the row that has it.

    Args:
        session: a writing one.
        row: what is known of it; None if nothing is.
        device: who said it.
        model: of what.
        said: what it said.
        stream: the outbox stream it came with.
        now: Unix seconds.
        snapshot: whether it is the state of this moment (a hello). A record may be late, and
            then does not undo the end of the same attempt.
    """
    said = bounded(said)
    attempt = (said.release, said.variant, said.attempt)
    if (
        row is not None
        and not snapshot
        and row.stream == stream
        and (row.release, row.variant, row.attempt) == attempt
        and row.phase in SETTLED
        and said.phase not in SETTLED
    ):
        return row
    fields = msgspec.structs.asdict(said) | {"stream": stream, "at": now}
    if row is None:
        row = tables.ReportedModel(device=device, model=model, **fields)
        session.add(row)
    else:
        for name, value in fields.items():
            setattr(row, name, value)
    place = session.get(tables.Assignment, (said.rollout, device)) if said.rollout else None
    if (
        place is not None
        and place.attempt == said.attempt
        and place.variant == said.variant
        and (place.phase, place.reason) != (said.phase, said.reason)
    ):
        place.phase = said.phase
        place.reason = said.reason
        place.cause = said.cause
        place.phase_at = now
    return row


def bounded(said: ReportedModel) -> ReportedModel:
    """What a device said, cut to what the columns hold."""
    limits = {"reason": 2000, "cause": 32, "rollout": 64}
    limits |= {"running_version": 128, "release_version": 128}
    texts = {
        name: fit(value, limits.get(name, _DIGEST))
        for name, value in msgspec.structs.asdict(said).items()
        if isinstance(value, str) and name != "phase"
    }
    return msgspec.structs.replace(said, attempt=max(0, min(said.attempt, _MAX_INT)), **texts)
