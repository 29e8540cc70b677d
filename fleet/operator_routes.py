"""The REST API `/api/v1`: thin routes over `fleet.services`, a router for each area."""

from fastapi import APIRouter, Depends, Request

from edgeml.errors import UserError
from fleet.access import Access
from fleet.access.guard import Guard, caller_of
from fleet.access.needs import needs
from fleet.access_routes import access_router
from fleet.alert_routes import alert_router, webhook_router
from fleet.configuration_routes import configuration_router
from fleet.detail_routes import detail_router
from fleet.device_routes import device_router
from fleet.event_routes import event_router
from fleet.events import EventHub
from fleet.identity_routes import identity_router
from fleet.metrics_routes import metrics_router
from fleet.observed_routes import observed_router
from fleet.release_routes import release_router
from fleet.resources import Health
from fleet.rest.openapi import RESPONSES
from fleet.rest.requests import ChangeRequest
from fleet.roles import Role
from fleet.rollout_routes import rollout_router
from fleet.services import health, recovery
from fleet.services.context import Services
from fleet.trust_routes import trust_router
from fleet.upkeep_routes import upkeep_router


def router(services: Services, access: Access, hub: EventHub) -> APIRouter:
    """All routes of the API."""
    guard = Depends(Guard(services))
    routes = APIRouter(prefix="/api/v1", responses=RESPONSES, dependencies=[guard])
    for area in (
        release_router,
        rollout_router,
        device_router,
        detail_router,
        configuration_router,
        observed_router,
        metrics_router,
        trust_router,
        identity_router,
        upkeep_router,
        alert_router,
        webhook_router,
    ):
        routes.include_router(area(services, caller_of))
    _system(routes, services)
    routes.include_router(event_router(hub, caller_of))
    routes.include_router(access_router(services, access))
    return routes


def _system(routes: APIRouter, services: Services) -> None:
    @routes.get("/health", tags=["system"])
    @needs(Role.VIEWER)
    def show_health(request: Request) -> Health:
        """Whether the parts of the fleet work."""
        return health.show(services, caller_of(request).scope)

    @routes.post("/thaw", tags=["system"])
    @needs(Role.ADMIN, whole_fleet=True)
    def thaw_rollouts(request: Request, body: ChangeRequest) -> Health:
        """Let rollouts move again after the database was restored; wants a reason."""
        if not body.reason.strip():
            raise UserError("A reason is needed.", why="It is kept in the audit log.")
        recovery.thaw(services, caller_of(request, body.reason))
        return health.show(services)
