"""The REST API of what is done now and then: bundles, garbage collection, the end of a device."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from pydantic import Field

from fleet.access.needs import needs
from fleet.resources import BundleContents, CollectInfo, DecommissionInfo, RetentionInfo
from fleet.rest.requests import WithReason
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import bundles, collect, decommission, retention
from fleet.services.context import Caller, Services


class BundleRequest(WithReason):
    """Says why."""


class CollectRequest(WithReason):
    """What stays in any case: the newest releases of each model, and what was in use lately."""

    dry_run: bool = Field(default=False, description="Only say what would go.")
    keep: int = Field(default=collect.KEEP, ge=1, le=10_000)
    grace_s: float = Field(default=collect.GRACE_S, ge=0, le=365 * 86400.0)


class DecommissionRequest(WithReason):
    """`wipe`: have the device delete its data first, and wait for its word."""

    wipe: bool = False


def upkeep_router(services: Services, caller: Callable[[Request, str], Caller]) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services)

    @routes.post("/devices/{device}/bundle", tags=["devices"])
    @needs(Role.OPERATOR)
    def bundle_contents(
        request: Request, device: str, body: BundleRequest | None = None
    ) -> BundleContents:
        """What a device without a network needs, but for the blobs, which the registry has."""
        return bundles.contents(services, caller(request, body.reason if body else ""), device)

    @routes.post("/devices/{device}/decommission", tags=["devices"])
    @needs(Role.ADMIN)
    def decommission_device(
        request: Request, device: str, body: DecommissionRequest | None = None
    ) -> DecommissionInfo:
        """End a device's service for good: wipe, revoke, forget."""
        asked = body or DecommissionRequest()
        who = caller(request, asked.reason)
        return decommission.decommission(services, who, device, wipe=asked.wipe)

    @routes.get("/devices/{device}/decommission", tags=["devices"])
    @needs(Role.VIEWER)
    def show_decommission(device: str) -> DecommissionInfo:
        """Where the end of a device's service stands."""
        return decommission.show(services, device)

    @routes.get("/retention", tags=["system"])
    @needs(Role.VIEWER)
    def show_retention() -> RetentionInfo:
        """How long and how much is kept; options of `edgeml fleet up` say so."""
        return retention.held(services)

    @routes.post("/releases/collect", tags=["releases"])
    @needs(Role.ADMIN, whole_fleet=True)
    def collect_garbage(request: Request, body: CollectRequest | None = None) -> CollectInfo:
        """Remove the blobs that no release that is kept refers to."""
        asked = body or CollectRequest()
        return collect.collect(
            services,
            caller(request, asked.reason),
            dry_run=asked.dry_run,
            keep=asked.keep,
            grace_s=asked.grace_s,
        )

    return routes
