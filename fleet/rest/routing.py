"""Where the routes of `/api/v1` are made, with what all of them share."""

from fastapi import APIRouter, Depends

from fleet.access.guard import Guard
from fleet.rest.openapi import RESPONSES
from fleet.services.context import Services


def api_router(services: Services, *tags: str, prefix: str = "") -> APIRouter:
    """A router whose routes are whole, and go into an application as they are.

    FastAPI makes each route of an included router a second time: half of what a start took.
    """
    return APIRouter(
        prefix=f"/api/v1{prefix}",
        tags=list(tags),
        responses=RESPONSES,
        dependencies=[Depends(Guard(services))],
    )
