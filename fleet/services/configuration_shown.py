"""A device's configuration as it is shown: each value with the layer that it comes from."""

import msgspec

from cloud_sync.messages import Configuration
from edgeml.errors import UserError
from fleet.configuration_resources import ConfigurationInfo, SettingInfo
from fleet.db import tables
from fleet.layers import Merged, flatten, merge, written
from fleet.problem import NotFound
from fleet.services import configuration
from fleet.services.context import Services

DEFAULT = "default"


def show(services: Services, device: str) -> ConfigurationInfo:
    """What a device's layers make, where each value comes from, and what the device says of it.

    Raises:
        NotFound: there is no such device.
    """
    with services.database.read() as session:
        row = session.get(tables.Device, device)
        if row is None:
            raise NotFound(
                f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
            )
        merged = merge(configuration.load(session, [device]).of(device))
    problem = ""
    try:
        configuration.made(merged)
    except UserError as error:
        problem = f"{error.what} {error.why}"
    status, error_said = "pending", ""
    if row.reported_config_version >= row.config_version:
        status = "committed"
    elif row.config_error:
        status, error_said = "refused", row.config_error
    return {
        "device": device,
        "settings": _settings(merged),
        "conflicts": [
            {"key": written(key), "layers": list(layers)}
            for key, layers in sorted(merged.conflicts.items())
        ],
        "problem": problem,
        "version": row.config_version,
        "reported_version": row.reported_config_version,
        "status": status,
        "error": error_said,
        "configuration": msgspec.json.decode(row.configuration),
    }


def _settings(merged: Merged) -> list[SettingInfo]:
    defaults = msgspec.to_builtins(Configuration())
    del defaults["config_version"]
    found: dict[str, SettingInfo] = {
        written(key): {"key": written(key), "value": value, "origin": DEFAULT}
        for key, value in flatten(defaults).items()
    }
    for key, setting in merged.settings.items():
        name = written(key)
        found[name] = {"key": name, "value": setting.value, "origin": setting.layer}
    return [found[name] for name in sorted(found)]
