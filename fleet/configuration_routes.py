"""The REST API of configurations and prices: a device's, the layers that make it, their changes."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cloud_sync.messages import Configuration
from fleet.access.needs import needs
from fleet.configuration_resources import (
    ConfigurationChange,
    ConfigurationInfo,
    ConfigurationPlan,
    LayerInfo,
)
from fleet.cost_resources import PricesInfo
from fleet.resources import DeviceInfo, Page
from fleet.rest.cursors import After, Limit, paged, sliced
from fleet.rest.etags import IfMatch, etag_of, require_match, tagged
from fleet.rest.requests import CallerOf, Reason, WithReason
from fleet.rest.routing import api_router
from fleet.roles import Role
from fleet.rollouts import parse_policy
from fleet.services import (
    configuration,
    configuration_changes,
    configuration_shown,
    cost,
    devices,
)
from fleet.services.configuration_changes import Change
from fleet.services.context import Services

_MAX_TEXT = 1 << 16
_Settings = Annotated[dict[str, Any], Body(description=Configuration.__doc__)]


class ProposedLayer(WithReason):
    """What a layer shall say; `selector` and `priority` make a layer, and stay what they are.

    `settings` replaces all that it said before. The layer `fleet` is for all devices.
    """

    settings: dict[str, Any]
    selector: str | None = Field(default=None, max_length=4096)
    priority: int | None = Field(default=None, ge=-1_000_000, le=1_000_000)

    def change(self, layer: str) -> Change:
        """The change of a layer that is asked for."""
        return Change(
            layer=layer, settings=self.settings, selector=self.selector, priority=self.priority
        )


class LayerRollout(ProposedLayer):
    """A change, and the policy (TOML) by which it is rolled out; its selector is the layer's."""

    policy: str = Field(default="", max_length=_MAX_TEXT)
    draft: bool = Field(default=False, description="Wait until it is started.")


class PricesRequest(BaseModel):
    """What a megabyte costs: the first of the prices whose selector chooses a device counts."""

    model_config = ConfigDict(extra="forbid")

    currency: str = Field(default="EUR", max_length=3)
    prices: list[dict[str, Any]] = Field(default_factory=list, max_length=100)


def configuration_router(services: Services, caller: CallerOf) -> APIRouter:
    """The operators' routes."""
    routes = api_router(services)
    _of_devices(routes, services, caller)
    _of_layers(routes, services, caller)
    _of_prices(routes, services, caller)
    return routes


def _of_devices(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.get("/devices/{device}/configuration", tags=["configurations"])
    @needs(Role.VIEWER)
    def show_device_settings(response: Response, device: str) -> dict[str, Any]:
        """What a device's own layer says; its ETag goes with a change of it."""
        return tagged(response, configuration.own_settings(services, device))

    @routes.put("/devices/{device}/configuration", tags=["configurations"])
    @needs(Role.OPERATOR)
    def configure_device(
        request: Request,
        device: str,
        settings: _Settings,
        reason: Reason = "",
        if_match: IfMatch = "",
    ) -> DeviceInfo:
        """Replace what a device's own layer says; with `If-Match` only if it is still that."""

        def check(before: dict[str, Any]) -> None:
            require_match(if_match, etag_of(before))

        configuration.set_own(services, caller(request, reason), device, settings, check)
        return devices.show(services, device)

    @routes.get("/devices/{device}/configuration/effective", tags=["configurations"])
    @needs(Role.VIEWER)
    def show_effective_configuration(device: str) -> ConfigurationInfo:
        """What a device's layers make together, with the layer that each value comes from."""
        return configuration_shown.show(services, device)


def _of_layers(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.get("/configurations", tags=["configurations"])
    @needs(Role.VIEWER)
    def list_layers(request: Request, after: After = "", limit: Limit = 100) -> Page[LayerInfo]:
        """The layers of the fleet and of labels, by name, with their history."""
        found = configuration_changes.layers(services, caller(request, "").scope)
        return paged(
            "configurations",
            after,
            lambda key: sliced(found, lambda i: i["layer"], key, limit),
            str,
        )

    @routes.get("/configurations/{layer}", tags=["configurations"])
    @needs(Role.VIEWER)
    def show_layer(request: Request, layer: str) -> LayerInfo:
        """One layer, with its history."""
        return configuration_changes.layer(services, layer, caller(request, "").scope)

    @routes.post("/configurations/{layer}/plan", tags=["configurations"])
    @needs(Role.VIEWER, whole_fleet=True)
    def plan_layer(
        layer: str,
        body: ProposedLayer,
        after: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int | None, Query(ge=0, le=100_000)] = None,
    ) -> ConfigurationPlan:
        """What a change of a layer would do, device by device; limit 0 gives the counts alone."""
        change = body.change(layer)
        return configuration_changes.plan(services, change, after=after, limit=limit)

    @routes.post("/configurations/{layer}/rollouts", status_code=201, tags=["configurations"])
    @needs(Role.OPERATOR, whole_fleet=True)
    def roll_layer_out(request: Request, layer: str, body: LayerRollout) -> ConfigurationChange:
        """Change a layer, in waves; where that changes no device, it holds at once."""
        return configuration_changes.begin(
            services,
            caller(request, body.reason),
            body.change(layer),
            parse_policy(body.policy),
            draft=body.draft,
        )


def _of_prices(routes: APIRouter, services: Services, caller: CallerOf) -> None:
    @routes.get("/prices", tags=["system"])
    @needs(Role.VIEWER)
    def show_prices() -> PricesInfo:
        """What a megabyte costs which devices."""
        return cost.prices(services)

    @routes.put("/prices", tags=["system"])
    @needs(Role.OPERATOR, whole_fleet=True)
    def set_prices(request: Request, body: PricesRequest, reason: Reason = "") -> PricesInfo:
        """Replace the prices."""
        return cost.set_prices(services, caller(request, reason), body.model_dump())
