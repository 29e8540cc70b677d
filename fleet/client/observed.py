"""What was observed: evidence, telemetry, audit, security events."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from fleet.client.connection import Connection
from fleet.resources import AuditInfo, EvidenceInfo, SecurityEventInfo, TelemetryWindow

if TYPE_CHECKING:
    from fleet.services.metrics import Metrics


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

    def metrics(
        self,
        *,
        begin: float | None = None,
        end: float | None = None,
        step_s: int = 0,
        by: Sequence[str] = (),
        **of: str,
    ) -> "Metrics":
        """Latency, errors and rates over time, in series; of the last day where no time is given.

        Args:
            begin: Unix seconds.
            end: Unix seconds.
            step_s: 0 chooses the best that fits.
            by: what series are kept apart by: `model`, `release`, `hardware_class`, `device`,
                `label:site`.
            of: `model`, `release`, `hardware_class`, `device`, `selector`, `stage`.
        """
        asked = {"begin": begin, "end": end, "step": step_s or None, "by": list(by), **of}
        params = {name: value for name, value in asked.items() if value not in (None, "", [])}
        return cast("Metrics", self._call("GET", "/metrics", params=params))

    def audit(self, *, limit: int | None = None, who: str = "") -> list[AuditInfo]:
        """The audit log, newest first; only what a user or token did, where one is named."""
        return list(itertools.islice(self._pages("/audit", who=who), limit))

    def verify_audit(self) -> int:
        """Check the audit log's chain; returns its length."""
        return int(self._get("/audit/verify")["entries"])

    def security_events(self) -> list[SecurityEventInfo]:
        """What was refused, newest first."""
        return list(self._pages("/security-events"))
