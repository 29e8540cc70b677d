"""The commands `edgeml devices ...`."""

from pathlib import Path
from typing import Annotated

import typer

from edgeml.errors import UserError
from fleet.commands import data as data_commands
from fleet.commands import device_counts, upkeep
from fleet.commands.configuration import configuration_app
from fleet.commands.connection import (
    Why,
    parse_labels,
    read_text,
    read_toml,
)
from fleet.commands.device_commands import command_app
from fleet.commands.session import Session, fleet_command

DAY_S = 86400.0
BootstrapFolder = Annotated[
    Path | None, typer.Option("--bootstrap", help="Write a bootstrap file for each in here.")
]
DevicesUrl = Annotated[
    str, typer.Option("--devices-url", help="Where devices reach the fleet: https://HOST:8081.")
]
devices_app = typer.Typer(help="See, configure, command and retire devices.", no_args_is_help=True)


@fleet_command(devices_app, "list")
def list_devices(
    fleet: Session,
    *,
    selector: Annotated[str, typer.Option(help="Label selector, such as site=north.")] = "",
) -> None:
    """List the devices, with what they run."""
    from fleet.show import devices_text

    found = fleet.client.devices(selector)
    fleet.show(found, devices_text(found))


@fleet_command(devices_app, "show")
def show_device(
    fleet: Session,
    device: Annotated[str, typer.Argument(help="The device's id.")],
) -> None:
    """Show a device: what is wanted of it, beside what it says."""
    from fleet.show import device_text
    from fleet.show_data import budget_text

    found = fleet.client.device(device)
    spent = fleet.client.ledger(device)
    cost = budget_text(found["configuration"].get("data_budget", {}), spent)
    fleet.show(found, f"{device_text(found)}\n\ndata budget\n{cost}")


@fleet_command(devices_app, "configure")
def configure(
    fleet: Session,
    device: Annotated[str, typer.Argument(help="The device's id.")],
    file: Annotated[Path, typer.Argument(help="The configuration, a TOML file.")],
    *,
    why: Why = "",
) -> None:
    """Replace a device's configuration; it goes out as a new desired state."""
    from fleet.show import device_text

    found = fleet.client.configure(device, read_toml(file), why)
    fleet.show(found, device_text(found))


@fleet_command(devices_app, "revoke")
def revoke(
    fleet: Session,
    device: Annotated[str, typer.Argument(help="The device's id.")],
    *,
    why: Why = "",
) -> None:
    """Let a device in no more, neither at the API nor at the broker: lost, stolen or cloned.

    What it sent stays. Another machine may take its place: edgeml fleet enroll with the same name.
    """
    found = fleet.client.revoke(device, why)
    text = f"{device} is revoked. To let a new machine take its place: edgeml fleet enroll {device}"
    fleet.show(found, text)


@fleet_command(devices_app, "tokens")
def tokens(
    fleet: Session,
    *,
    csv: Annotated[Path, typer.Option("--csv", help="Columns: device, and one for each label.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the tokens into this CSV, for you alone.")
    ] = None,
    bootstrap: BootstrapFolder = None,
    devices_url: DevicesUrl = "",
    ttl_days: Annotated[float, typer.Option(help="Days that the tokens are good for.")] = 30.0,
    why: Why = "",
) -> None:
    """Make a one-time token for each device of a list, and a bootstrap file for each, if wanted."""
    from fleet import bootstrap as files

    listed = files.read_devices(read_text(csv))
    if bootstrap and not devices_url:
        raise UserError(
            "Bootstrap files name the fleet.", fix="Give --devices-url https://HOST:8081"
        )
    made = fleet.client.enroll_many(listed, ttl_days * DAY_S, why)
    now = made[0]["expires_at"] - ttl_days * DAY_S
    if out:
        files.write_private(out, files.tokens_csv(made))
    for one in made if bootstrap else ():
        assert bootstrap is not None
        text = files.bootstrap_text(one, devices_url, now)
        files.write_private(bootstrap / f"{one['device']}.toml", text)
    if out or bootstrap:
        written = [f"{len(made)} tokens to {out}"] if out else []
        written += [f"{len(made)} bootstrap files to {bootstrap}"] if bootstrap else []
        fleet.show({"tokens": len(made)}, f"Written: {', '.join(written)}.")
    else:
        fleet.show(made, files.tokens_csv(made).rstrip())


@fleet_command(devices_app, "bootstrap")
def bootstrap_file(
    fleet: Session,
    file: Annotated[Path, typer.Argument(help="The file to write, for a disk image.")],
    *,
    device: Annotated[str, typer.Option(help="One id, or cam-*: * is the board's serial number.")],
    devices_url: DevicesUrl,
    uses: Annotated[int, typer.Option(min=1, help="How many new devices may enrol with it.")] = 1,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="KEY=VALUE; may be given again.")
    ] = None,
    ttl_days: Annotated[float, typer.Option(help="Days that it is good for.")] = 30.0,
    why: Why = "",
) -> None:
    """Write a file with which a device, or many from one disk image, enrol on their first boot.

    Put it on the image as /boot/edgeml.toml, /boot/firmware/edgeml.toml or
    /etc/edgeml/bootstrap.toml, or where the variable EDGEML_BOOTSTRAP says. `edgeml agent run`
    enrols with it and removes it. Whoever has the image can enrol new devices until the
    uses or the days are over, but never in the place of one that is there.
    """
    from fleet import bootstrap as files

    [made] = fleet.client.enroll_many(
        {device: parse_labels(label or [])}, ttl_days * DAY_S, why, uses=uses
    )
    now = made["expires_at"] - ttl_days * DAY_S
    files.write_private(file, files.bootstrap_text(made, devices_url, now))
    body = {"file": str(file), "device": device, "uses": uses, "expires_at": made["expires_at"]}
    fleet.show(body, f"{file} lets {device} in, {uses} times within {ttl_days:g} days.")


data_commands.add(devices_app)
device_counts.add(devices_app)
devices_app.command("decommission")(upkeep.decommission)
devices_app.add_typer(command_app, name="command")
devices_app.add_typer(configuration_app, name="configuration")
