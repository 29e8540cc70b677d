"""The REST API of models and releases: thin routes over `fleet.services.releases`."""

from fastapi import APIRouter, Request
from pydantic import Field

from fleet.access.needs import needs
from fleet.resources import ModelInfo, Page, ReleaseInfo
from fleet.rest.cursors import After, Limit, paged, sliced
from fleet.rest.requests import CallerOf, Text, WithReason
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.services import releases
from fleet.services.context import Services


class ReleaseRequest(WithReason):
    """Registers a release that was pushed to `/v2/{model}`."""

    model: str = Field(max_length=128)
    digest: str = Field(max_length=128)


def release_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services, "releases")

    @routes.get("/models")
    @needs(Role.VIEWER)
    def list_models(request: Request, after: After = "", limit: Limit = 100) -> Page[ModelInfo]:
        """The models, by name, with what runs where."""
        found = releases.list_models(services, scope=caller(request, "").scope)
        return paged(
            "models", after, lambda key: sliced(found, lambda m: m["model"], key, limit), str
        )

    @routes.get("/models/{model}")
    @needs(Role.VIEWER)
    def show_model(request: Request, model: str) -> ModelInfo:
        """One model, with what runs where."""
        return releases.show_model(services, model, scope=caller(request, "").scope)

    @routes.get("/releases")
    @needs(Role.VIEWER)
    def list_releases(model: Text = "", after: After = "", limit: Limit = 100) -> Page[ReleaseInfo]:
        """The releases, newest first."""
        return paged(
            "releases",
            after,
            lambda key: releases.page(services, model=model, after=key, limit=limit),
            str,
        )

    @routes.post("/releases", status_code=201)
    @needs(Role.OPERATOR)
    def register_release(request: Request, body: ReleaseRequest) -> ReleaseInfo:
        """Register a release that was pushed."""
        return releases.register(services, caller(request, body.reason), body.model, body.digest)

    @routes.get("/releases/{model}/{version}")
    @needs(Role.VIEWER)
    def show_release(model: str, version: str) -> ReleaseInfo:
        """One release."""
        return releases.show(services, model, version)

    return routes
