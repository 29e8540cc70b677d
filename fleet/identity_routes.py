"""The REST API of devices' identities: tokens for many, revocation, a reset of proven time."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from pydantic import Field

from fleet.access.needs import needs
from fleet.resources import DeviceInfo, EnrollmentToken
from fleet.rest.requests import WithReason
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import devices, enrollment, identity
from fleet.services.context import Caller, Services


class EnrollmentsRequest(WithReason):
    """Asks for a token for each device, with its labels; or for new devices named like `cam-*`."""

    devices: dict[str, dict[str, str]] = Field(min_length=1, max_length=enrollment.MAX_TOKENS)
    ttl_s: float = Field(default=enrollment.DEFAULT_TTL_S, gt=0, le=enrollment.MAX_TTL_S)
    uses: int = Field(default=1, ge=1, le=enrollment.MAX_USES)


class RevokeRequest(WithReason):
    """Says why."""


def identity_router(services: Services, caller: Callable[[Request, str], Caller]) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services, "devices")

    @routes.post("/enrollments/batch", status_code=201)
    @needs(Role.OPERATOR)
    def create_enrollments(request: Request, body: EnrollmentsRequest) -> list[EnrollmentToken]:
        """Make enrolment tokens for many devices: all of them, or none."""
        who = caller(request, body.reason)
        return enrollment.create_tokens(services, who, body.devices, body.ttl_s, uses=body.uses)

    @routes.post("/devices/{device}/revoke")
    @needs(Role.OPERATOR)
    def revoke_device(
        request: Request, device: str, body: RevokeRequest | None = None
    ) -> DeviceInfo:
        """Let a device in no more, neither at the API nor at the broker."""
        identity.revoke(services, caller(request, body.reason if body else ""), device)
        return devices.show(services, device)

    @routes.post("/time/reset", tags=["system"])
    @needs(Role.ADMIN, whole_fleet=True)
    def reset_proven_time(request: Request, body: RevokeRequest | None = None) -> dict[str, str]:
        """Have devices take the fleet's time also where they held a later one for proven."""
        who = caller(request, body.reason if body else "")
        return {"reset": identity.reset_time(services, who)}

    return routes
