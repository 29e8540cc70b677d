"""The REST API of alerts and webhooks: thin routes over their services."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import Field

from fleet.access.needs import needs
from fleet.alerts.conditions import Kind
from fleet.alerts.resources import AlertInfo, AlertRulesInfo
from fleet.alerts.rules import AlertRules
from fleet.resources import Page
from fleet.rest.cursors import After, Limit, paged, sliced
from fleet.rest.etags import IfMatch, tagged
from fleet.rest.requests import CallerOf, ChangeRequest, Reason, WithReason, why
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import alerts, webhooks
from fleet.services.context import Services
from fleet.webhooks.resources import DeliveryInfo, WebhookInfo, WebhookSecret

Id = Annotated[int, Path(ge=1, le=2**53)]
EventType = Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9.-]+(\.\*)?$")]


class AcknowledgeRequest(WithReason):
    """Says what is done about the alert."""

    reason: str = Field(min_length=1, max_length=2000, pattern=r"\S")


class WebhookRequest(WithReason):
    """Where to send events, and which; `dev.edgeml.alert.*` are all of alerts."""

    url: str = Field(max_length=2000)
    events: list[EventType] = Field(default_factory=list, max_length=32)
    allow_private: bool = Field(
        default=False, description="Allow addresses that are not public: the fleet's own network."
    )


def alert_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes of alerts."""
    routes = api_router(services, "alerts")

    @routes.get("/alerts")
    @needs(Role.VIEWER)
    def list_alerts(
        request: Request,
        *,
        state: Annotated[Literal["", "firing", "resolved"], Query()] = "",
        kind: Annotated[Kind | Literal[""], Query()] = "",
        after: After = "",
        limit: Limit = 100,
    ) -> Page[AlertInfo]:
        """The alerts, newest first."""
        scope = caller(request, "").scope
        return paged(
            "alerts",
            after,
            lambda key: alerts.list_alerts(
                services, state=state, kind=kind, after=key, limit=limit, scope=scope
            ),
            int,
        )

    @routes.get("/alerts/{alert}")
    @needs(Role.VIEWER)
    def show_alert(request: Request, alert: Id) -> AlertInfo:
        """One alert."""
        return alerts.show(services, alert, caller(request, "").scope)

    @routes.post("/alerts/{alert}/acknowledge")
    @needs(Role.OPERATOR)
    def acknowledge_alert(request: Request, alert: Id, body: AcknowledgeRequest) -> AlertInfo:
        """Say that somebody looks after an alert, and why."""
        return alerts.acknowledge(services, caller(request, body.reason), alert)

    @routes.get("/alert-rules")
    @needs(Role.VIEWER)
    def show_alert_rules(response: Response) -> AlertRulesInfo:
        """When alerts fire."""
        return tagged(response, alerts.rules(services))

    @routes.put("/alert-rules")
    @needs(Role.ADMIN, whole_fleet=True)
    def set_alert_rules(
        request: Request,
        settings: Annotated[dict[str, Any], Body(description=AlertRules.__doc__)],
        reason: Reason = "",
        if_match: IfMatch = "",
    ) -> AlertRulesInfo:
        """Change when alerts fire; what is not named gets its default."""
        return alerts.set_rules(services, caller(request, reason), settings, if_match=if_match)

    return routes


def webhook_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes of webhooks."""
    routes = api_router(services, "webhooks")

    @routes.get("/webhooks")
    @needs(Role.ADMIN, whole_fleet=True)
    def list_webhooks(after: After = "", limit: Limit = 100) -> Page[WebhookInfo]:
        """Where events are sent, and how it goes."""
        found = webhooks.list_webhooks(services)
        return paged(
            "webhooks", after, lambda key: sliced(found, lambda w: w["id"], key, limit), str
        )

    @routes.post("/webhooks", status_code=201)
    @needs(Role.ADMIN, whole_fleet=True)
    def add_webhook(request: Request, response: Response, body: WebhookRequest) -> WebhookSecret:
        """Have events sent to a URL; the secret is in this answer and in no other."""
        response.headers["Cache-Control"] = "no-store"
        who = caller(request, body.reason)
        return webhooks.add(services, who, body.url, body.events, allow_private=body.allow_private)

    @routes.get("/webhooks/{webhook}")
    @needs(Role.ADMIN, whole_fleet=True)
    def show_webhook(webhook: str) -> WebhookInfo:
        """One webhook."""
        return webhooks.show(services, webhook)

    @routes.delete("/webhooks/{webhook}", status_code=204)
    @needs(Role.ADMIN, whole_fleet=True)
    def remove_webhook(request: Request, webhook: str, reason: Reason = "") -> None:
        """Send nothing there any more."""
        webhooks.remove(services, caller(request, reason), webhook)

    @routes.post("/webhooks/{webhook}/test", status_code=202)
    @needs(Role.ADMIN, whole_fleet=True)
    def test_webhook(
        request: Request, webhook: str, body: ChangeRequest | None = None
    ) -> DeliveryInfo:
        """Send a test event."""
        return webhooks.test(services, caller(request, why(body)), webhook)

    @routes.get("/webhooks/{webhook}/deliveries")
    @needs(Role.ADMIN, whole_fleet=True)
    def list_deliveries(
        webhook: str,
        *,
        status: Annotated[Literal["", "waiting", "delivered", "dead"], Query()] = "",
        after: After = "",
        limit: Limit = 100,
    ) -> Page[DeliveryInfo]:
        """What was and is sent to a webhook, newest first."""
        return paged(
            "deliveries",
            after,
            lambda key: webhooks.deliveries(
                services, webhook, status=status, after=key, limit=limit
            ),
            int,
        )

    @routes.get("/webhooks/{webhook}/deliveries/{delivery}")
    @needs(Role.ADMIN, whole_fleet=True)
    def show_delivery(webhook: str, delivery: Id) -> DeliveryInfo:
        """One event on its way."""
        return webhooks.delivery(services, webhook, delivery)

    @routes.post("/webhooks/{webhook}/deliveries/{delivery}/retry", status_code=202)
    @needs(Role.ADMIN, whole_fleet=True)
    def retry_delivery(
        request: Request, webhook: str, delivery: Id, body: ChangeRequest | None = None
    ) -> DeliveryInfo:
        """Send an event again that was given up."""
        return webhooks.retry(services, caller(request, why(body)), webhook, delivery)

    return routes
