"""Malformed input: all of it is counted, a little of it is kept for a person to look at."""

from edgeml.errors import EdgemlError
from fleet.db import tables
from fleet.services.columns import fit
from fleet.services.context import Services

KIND = "malformed-input"
_OF_A_DEVICE_S = 600.0
_OF_ALL_S = 1.0
_BYTES = 64


def keep(services: Services, device: str, what: str, payload: bytes, error: EdgemlError) -> None:
    """Keep the beginning of a message that was refused, as a security event; seldom.

    Whoever floods the fleet with noise shall not fill its disk.
    """
    due = services.counters.is_due
    if not due(f"{KIND} {device[:64]}", _OF_A_DEVICE_S) or not due(KIND, _OF_ALL_S):
        return
    detail = f"{what}, {len(payload)} bytes: {error} It begins {payload[:_BYTES]!r}"
    with services.database.write() as session:
        session.add(
            tables.SecurityEvent(
                at=services.now(), device=fit(device, 64), kind=KIND, detail=fit(detail, 500)
            )
        )
    services.changes.announce()
