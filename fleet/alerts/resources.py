"""What the API gives of alerts."""

from typing import Any, Literal

# pydantic wants this one before Python 3.12
from typing_extensions import TypedDict


class AlertInfo(TypedDict):
    """A condition that a person should know of, and where it stands.

    `state` is `firing` or `resolved`. Whoever looks after it acknowledges it, with the reason.
    """

    id: int
    kind: str
    subject: str
    severity: str
    state: str
    summary: str
    detail: dict[str, Any]
    began_at: float
    resolved_at: float | None
    acknowledged_at: float | None
    acknowledged_by: str
    acknowledged_reason: str


class AlertRulesInfo(TypedDict):
    """When alerts fire. 0 turns a rule off; `severity` is given by the kind of an alert."""

    device_offline_s: float
    device_offline_each: int
    security_event_s: float
    expiry_s: float
    disk_free_share: float
    ingest_waiting: int
    webhook_dead_s: float
    registry_behind_s: float


AlertState = Literal["firing", "resolved"]
