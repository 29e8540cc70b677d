"""The commands `edgeml fleet ...`: run the server, let devices in, look after it."""

from typing import Annotated

import typer

from fleet.commands import backup
from fleet.commands.broker import broker_config
from fleet.commands.connection import (
    Why,
    parse_labels,
)
from fleet.commands.prices import prices_app
from fleet.commands.serve import serve, up
from fleet.commands.session import Session, fleet_command

fleet_app = typer.Typer(help="Run the fleet's server, and let devices in.", no_args_is_help=True)


@fleet_command(fleet_app, "enroll")
def enroll(
    fleet: Session,
    device: Annotated[str, typer.Argument(help="The new device's id.")],
    *,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="KEY=VALUE; may be given again.")
    ] = None,
    ttl: Annotated[float, typer.Option(help="Seconds that the token is good for.")] = 3600.0,
    why: Why = "",
) -> None:
    """Make a one-time token with which a device enrols itself."""
    made = fleet.client.enroll(device, parse_labels(label or []), ttl, why)
    text = f"{made['token']}\n"
    typer.echo(
        f"{device} enrols with it once, within {ttl:.0f} s:\n"
        f"  edgeml agent enroll --device {device} --fleet DEVICES_URL --token TOKEN --data FOLDER",
        err=True,
    )
    fleet.show(made, text.rstrip())


@fleet_command(fleet_app, "console")
def console(
    fleet: Session,
) -> None:
    """Print a link to the console that logs in once."""
    link = fleet.client.login_link()
    fleet.show(link, link["url"])


@fleet_command(fleet_app, "health")
def health(
    fleet: Session,
) -> None:
    """Show whether the parts of the fleet work, and what they counted."""
    from fleet.show import health_text

    found = fleet.client.health()
    fleet.show(found, health_text(found))


@fleet_command(fleet_app, "security")
def security(
    fleet: Session,
) -> None:
    """Show what the fleet or a device refused as forged or not signed, newest first."""
    from fleet.show import security_text

    found = fleet.client.security_events()
    fleet.show(found, security_text(found))


@fleet_command(fleet_app, "reset-time")
def reset_time(
    fleet: Session,
    *,
    why: Annotated[str, typer.Option("--why", help="The reason, kept in the audit log.")],
) -> None:
    """Have devices go back to the fleet's time, after its own clock was ahead of the truth.

    What a device holds for proven only rises. Where the fleet has once told a time in the future,
    each device takes the present one when it next asks, in an answer that the director signs.
    """
    found = fleet.client.reset_time(why)
    fleet.show(found, "Devices take the fleet's time as it is when they next ask.")


@fleet_command(fleet_app, "thaw")
def thaw(
    fleet: Session,
    *,
    why: Annotated[str, typer.Option("--why", help="The reason, kept in the audit log.")],
) -> None:
    """Let rollouts move again after the database was restored from a backup."""
    frozen = fleet.client.health()["frozen"]
    found = fleet.client.thaw(why)
    text = "Rollouts move again." if frozen else "Rollouts were not frozen: they move as before."
    fleet.show(found, text)


fleet_app.command("up")(up)
fleet_app.command("serve")(serve)
fleet_app.command("broker-config")(broker_config)
backup.add(fleet_app)
fleet_app.add_typer(prices_app, name="prices")
