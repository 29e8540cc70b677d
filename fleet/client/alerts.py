"""Alerts."""

from collections.abc import Mapping
from typing import Any, cast

from fleet.alerts.resources import AlertInfo, AlertRulesInfo
from fleet.client.connection import Connection


class AlertCalls(Connection):
    """Alerts."""

    def alerts(self, state: str = "", kind: str = "") -> list[AlertInfo]:
        """The alerts, newest first."""
        return list(self._pages("/alerts", state=state, kind=kind))

    def acknowledge(self, alert: int, reason: str) -> AlertInfo:
        """Say that somebody looks after an alert, and why."""
        return cast("AlertInfo", self._post(f"/alerts/{alert}/acknowledge", {"reason": reason}))

    def alert_rules(self) -> AlertRulesInfo:
        """When alerts fire."""
        return cast("AlertRulesInfo", self._get("/alert-rules"))

    def set_alert_rules(self, rules: Mapping[str, Any], reason: str = "") -> AlertRulesInfo:
        """Change when alerts fire; what is not named gets its default."""
        return cast("AlertRulesInfo", self._put("/alert-rules", rules, reason))
