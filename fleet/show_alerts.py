"""Models, alerts and webhooks as text for a terminal."""

from collections.abc import Sequence

from fleet.alerts.resources import AlertInfo, AlertRulesInfo
from fleet.resources import ModelInfo
from fleet.show import table, when
from fleet.webhooks.resources import DeliveryInfo, WebhookInfo

_MAX_DELIVERIES = 20


def models_text(models: Sequence[ModelInfo]) -> str:
    """One line a model."""
    if not models:
        return "There is no model yet. Push a release: edgeml releases push FOLDER"
    rows = [
        [
            m["model"],
            str(m["releases"]),
            m["latest"],
            ", ".join(f"{n} x {version}" for version, n in sorted(m["running"].items())) or "-",
        ]
        for m in models
    ]
    return table(["model", "releases", "latest", "devices run"], rows)


def alerts_text(alerts: Sequence[AlertInfo]) -> str:
    """One line an alert, the newest first."""
    if not alerts:
        return "Nothing fires."
    rows = [
        [
            str(a["id"]),
            a["state"],
            a["severity"],
            when(a["began_at"]),
            _looked_after(a),
            a["summary"],
        ]
        for a in alerts
    ]
    return table(["id", "state", "severity", "since", "acknowledged", "what"], rows)


def alert_text(alert: AlertInfo) -> str:
    """An alert, with who looks after it."""
    text = alerts_text([alert])
    if alert["acknowledged_reason"]:
        text += f"\n\n{alert['acknowledged_by']}: {alert['acknowledged_reason']}"
    return text


def rules_text(rules: AlertRulesInfo) -> str:
    """A line a rule, as the TOML file that sets them."""
    return "\n".join(f"{name} = {value}" for name, value in rules.items())


def webhooks_text(webhooks: Sequence[WebhookInfo]) -> str:
    """One line a webhook."""
    if not webhooks:
        return "There is no webhook yet. Add one: edgeml webhooks add https://HOST/PATH"
    rows = [
        [
            w["id"],
            w["url"],
            ", ".join(w["events"]) or "all",
            f"{w['delivered']} sent, {w['waiting']} waiting, {w['dead']} given up",
            w["disabled"] or w["last_error"],
        ]
        for w in webhooks
    ]
    return table(["id", "url", "events", "deliveries", "why"], rows)


def webhook_text(webhook: WebhookInfo, deliveries: Sequence[DeliveryInfo]) -> str:
    """A webhook, and what was sent to it last."""
    text = webhooks_text([webhook])
    return f"{text}\n\n{deliveries_text(deliveries[:_MAX_DELIVERIES])}" if deliveries else text


def deliveries_text(deliveries: Sequence[DeliveryInfo]) -> str:
    """One line a delivery."""
    rows = [
        [
            str(d["id"]),
            d["type"].removeprefix("dev.edgeml."),
            d["status"],
            str(d["attempts"]),
            when(d["settled_at"] or d["next_at"] or d["created_at"]),
            d["error"],
        ]
        for d in deliveries
    ]
    return table(["id", "event", "status", "attempts", "sent or next", "why"], rows)


def _looked_after(alert: AlertInfo) -> str:
    return f"by {alert['acknowledged_by']}" if alert["acknowledged_at"] else "no"
