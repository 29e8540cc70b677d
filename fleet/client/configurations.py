"""Configurations and prices: layers, their changes, where a device's values come from."""

from collections.abc import Mapping
from typing import Any, cast

from fleet.client.connection import Connection, part
from fleet.configuration_resources import (
    ConfigurationChange,
    ConfigurationInfo,
    ConfigurationPlan,
    LayerInfo,
)
from fleet.cost_resources import PricesInfo


class ConfigurationCalls(Connection):
    """Configurations and prices: layers, their changes, where a device's values come from."""

    def configuration(self, device: str) -> ConfigurationInfo:
        """What a device's layers make together, with the layer that each value comes from."""
        path = f"/devices/{part(device)}/configuration/effective"
        return cast("ConfigurationInfo", self._get(path))

    def settings(self, device: str) -> dict[str, Any]:
        """What a device's own layer says, which `configure` replaces."""
        return cast("dict[str, Any]", self._get(f"/devices/{part(device)}/configuration"))

    def layers(self) -> list[LayerInfo]:
        """The layers of the fleet and of labels."""
        return list(self._pages("/configurations"))

    def layer(self, layer: str) -> LayerInfo:
        """One layer, with its history."""
        return cast("LayerInfo", self._get(f"/configurations/{part(layer)}"))

    def plan_layer(
        self,
        layer: str,
        settings: Mapping[str, Any],
        *,
        selector: str | None = None,
        priority: int | None = None,
    ) -> ConfigurationPlan:
        """What a change of a layer would do, device by device."""
        body = _body(settings, selector, priority)
        found = self._post(f"/configurations/{part(layer)}/plan", body)
        return cast("ConfigurationPlan", found)

    def change_layer(
        self,
        layer: str,
        settings: Mapping[str, Any],
        policy: str = "",
        reason: str = "",
        *,
        selector: str | None = None,
        priority: int | None = None,
        draft: bool = False,
    ) -> ConfigurationChange:
        """Change a layer, in waves; `policy` is the TOML text."""
        body = _body(settings, selector, priority)
        body |= {"policy": policy, "draft": draft, "reason": reason}
        found = self._post(f"/configurations/{part(layer)}/rollouts", body)
        return cast("ConfigurationChange", found)

    def prices(self) -> PricesInfo:
        """What a megabyte costs which devices."""
        return cast("PricesInfo", self._get("/prices"))

    def set_prices(self, prices: Mapping[str, Any], reason: str = "") -> PricesInfo:
        """Replace the prices; `currency`, and `prices` with `selector` and `per_mb`."""
        return cast("PricesInfo", self._put("/prices", prices, reason))


def _body(
    settings: Mapping[str, Any], selector: str | None, priority: int | None
) -> dict[str, Any]:
    return {"settings": dict(settings), "selector": selector, "priority": priority}
