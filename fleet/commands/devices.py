"""The commands `edgeml devices ...`."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.connection import (
    DATA,
    FLEET,
    AsJson,
    Data,
    FleetUrl,
    Token,
    Why,
    connect,
    read_toml,
    show,
)

devices_app = typer.Typer(help="See and configure devices.", no_args_is_help=True)


@devices_app.command("list")
def list_devices(
    *,
    selector: Annotated[str, typer.Option(help="Label selector, such as site=north.")] = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """List the devices, with what they run."""
    from fleet.show import devices_text

    with connect(fleet, token, data) as client:
        found = client.devices(selector)
    show(found, devices_text(found), as_json=as_json)


@devices_app.command("show")
def show_device(
    device: Annotated[str, typer.Argument(help="The device's id.")],
    *,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Show a device: what is wanted of it, beside what it says."""
    from fleet.show import device_text

    with connect(fleet, token, data) as client:
        found = client.device(device)
    show(found, device_text(found), as_json=as_json)


@devices_app.command("configure")
def configure(
    device: Annotated[str, typer.Argument(help="The device's id.")],
    file: Annotated[Path, typer.Argument(help="The configuration, a TOML file.")],
    *,
    why: Why = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Replace a device's configuration; it goes out as a new desired state."""
    from fleet.show import device_text

    with connect(fleet, token, data) as client:
        found = client.configure(device, read_toml(file), why)
    show(found, device_text(found), as_json=as_json)
