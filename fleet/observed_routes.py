"""The REST API of what was observed: evidence, telemetry, the audit log, security events."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from fleet.access.needs import needs
from fleet.resources import AuditInfo, EvidenceInfo, Page, SecurityEventInfo, TelemetryWindow
from fleet.rest.cursors import After, Limit, paged
from fleet.rest.requests import CallerOf, Text
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import audit, records, releases, security
from fleet.services.audit import Wanted
from fleet.services.context import Services

Unix = Annotated[float, Query(ge=0, le=1e11, description="Unix seconds; 0: no bound.")]


def observed_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services, "observed")

    @routes.get("/evidence")
    @needs(Role.VIEWER)
    def list_evidence(
        request: Request,
        *,
        release: Text = "",
        rollout: Text = "",
        device: Text = "",
        after: After = "",
        limit: Limit = 100,
    ) -> Page[EvidenceInfo]:
        """Evidence of converters and devices, newest first."""
        scope = caller(request, "").scope
        return paged(
            "evidence",
            after,
            lambda key: releases.list_evidence(
                services,
                release=release,
                rollout=rollout,
                device=device,
                after=key,
                limit=limit,
                scope=scope,
            ),
            int,
        )

    @routes.get("/telemetry")
    @needs(Role.VIEWER)
    def list_telemetry(
        request: Request,
        *,
        device: Text = "",
        model: Text = "",
        after: After = "",
        limit: Limit = 100,
    ) -> Page[TelemetryWindow]:
        """Windows of telemetry, newest first."""
        scope = caller(request, "").scope
        return paged(
            "telemetry",
            after,
            lambda key: records.telemetry(
                services, device=device, model=model, after=key, limit=limit, scope=scope
            ),
            int,
        )

    @routes.get("/audit")
    @needs(Role.VIEWER)
    def list_audit(
        request: Request,
        *,
        who: Text = "",
        action: Text = "",
        subject: Text = "",
        since: Unix = 0.0,
        until: Unix = 0.0,
        after: After = "",
        limit: Limit = 100,
    ) -> Page[AuditInfo]:
        """Who did what and why, newest first; `action` may be the beginning of some: `rollout`."""
        asks = caller(request, "")
        wanted = Wanted(who=who, action=action, subject=subject, since=since, until=until)

        def page(key: int) -> Page[AuditInfo]:
            return audit.entries(services, after=key, limit=limit, caller=asks, wanted=wanted)

        return paged("audit", after, page, int)

    @routes.get("/audit/verify")
    @needs(Role.VIEWER)
    def verify_audit() -> dict[str, int]:
        """Check the audit log's chain."""
        return {"entries": audit.verify(services)}

    @routes.get("/security-events")
    @needs(Role.VIEWER)
    def list_security_events(
        request: Request, after: After = "", limit: Limit = 100
    ) -> Page[SecurityEventInfo]:
        """What was refused, newest first."""
        scope = caller(request, "").scope
        return paged(
            "security-events",
            after,
            lambda key: security.events(services, after=key, limit=limit, scope=scope),
            int,
        )

    return routes
