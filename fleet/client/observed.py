"""What was observed: evidence, telemetry, audit, security events."""

import itertools
from typing import cast

from fleet.client.connection import Connection
from fleet.resources import AuditInfo, EvidenceInfo, SecurityEventInfo, TelemetryWindow


class ObservedCalls(Connection):
    """What was observed: evidence, telemetry, audit, security events."""

    def evidence(
        self, *, rollout: str = "", release: str = "", device: str = ""
    ) -> list[EvidenceInfo]:
        """Evidence, newest first."""
        return list(self._pages("/evidence", rollout=rollout, release=release, device=device))

    def telemetry(
        self, *, device: str = "", model: str = "", limit: int = 100
    ) -> list[TelemetryWindow]:
        """The newest windows of telemetry."""
        page = self._get("/telemetry", device=device, model=model, limit=str(limit))
        return cast("list[TelemetryWindow]", page["items"])

    def audit(self, *, limit: int | None = None, who: str = "") -> list[AuditInfo]:
        """The audit log, newest first; only what a user or token did, where one is named."""
        return list(itertools.islice(self._pages("/audit", who=who), limit))

    def verify_audit(self) -> int:
        """Check the audit log's chain; returns its length."""
        return int(self._get("/audit/verify")["entries"])

    def security_events(self) -> list[SecurityEventInfo]:
        """What was refused, newest first."""
        return list(self._pages("/security-events"))
