"""The REST API `/api/v1`: thin routes over `fleet.services`, a router for each area."""

from fastapi import APIRouter, Request
from starlette.routing import BaseRoute

from edgeml.errors import UserError
from fleet.access import Access
from fleet.access.guard import caller_of
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
from fleet.rest.requests import ChangeRequest
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.rollout_routes import rollout_router
from fleet.sample_routes import sample_router
from fleet.services import health, recovery
from fleet.services.context import Services
from fleet.trust_routes import trust_router
from fleet.upkeep_routes import upkeep_router

_AREAS = (
    release_router,
    rollout_router,
    device_router,
    detail_router,
    configuration_router,
    observed_router,
    sample_router,
    metrics_router,
    trust_router,
    identity_router,
    upkeep_router,
    alert_router,
    webhook_router,
)


def api_routes(services: Services, access: Access, hub: EventHub) -> list[BaseRoute]:
    """All routes of the API."""
    routers = [area(services, caller_of) for area in _AREAS]
    routers += [
        _system_router(services),
        event_router(services, hub, caller_of),
        access_router(services, access),
    ]
    return [route for router in routers for route in router.routes]


def _system_router(services: Services) -> APIRouter:
    routes = api_router(services, "system")

    @routes.get("/health")
    @needs(Role.VIEWER)
    def show_health(request: Request) -> Health:
        """Whether the parts of the fleet work."""
        return health.show(services, caller_of(request).scope)

    @routes.post("/thaw")
    @needs(Role.ADMIN, whole_fleet=True)
    def thaw_rollouts(request: Request, body: ChangeRequest) -> Health:
        """Let rollouts move again after the database was restored; wants a reason."""
        if not body.reason.strip():
            raise UserError("A reason is needed.", why="It is kept in the audit log.")
        recovery.thaw(services, caller_of(request, body.reason))
        return health.show(services)

    return routes
