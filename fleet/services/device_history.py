"""What a device said of its releases, one after the other, with its reasons."""

import msgspec
from sqlalchemy import select
from typing_extensions import TypedDict

from cloud_sync.messages import RecordKind, StateRecord
from fleet.db import tables
from fleet.problem import NotFound
from fleet.services.context import Services

MOST = 200


class HistoryEntry(TypedDict):
    """A change of what a device said of one model; `at` is null where its clock was not known."""

    id: int
    at: float | None
    received_at: float
    model: str
    phase: str
    version: str
    release: str
    running_version: str
    rollout: str
    reason: str


def show(services: Services, device: str, *, limit: int = MOST) -> list[HistoryEntry]:
    """What a device said of its models, newest first, as far back as records are kept.

    Raises:
        NotFound: there is no such device.
    """
    table = tables.Record
    query = (
        select(table.id, table.at, table.received_at, table.body)
        .where(table.device == device, table.kind == str(RecordKind.STATE))
        .order_by(table.id.desc())
        .limit(min(limit, MOST))
    )
    with services.database.read() as session:
        if session.get(tables.Device, device) is None:
            raise NotFound(
                f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
            )
        rows = session.execute(query).all()
    return [_entry(*row) for row in rows]


def _entry(number: int, at: float | None, received_at: float, body: bytes) -> HistoryEntry:
    said = msgspec.json.decode(body, type=StateRecord)
    return {
        "id": number,
        "at": at,
        "received_at": received_at,
        "model": said.model,
        "phase": str(said.state.phase),
        "version": said.state.release_version,
        "release": said.state.release,
        "running_version": said.state.running_version,
        "rollout": said.state.rollout,
        "reason": said.state.reason,
    }
