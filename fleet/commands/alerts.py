"""The commands `edgeml alerts ...`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fleet.commands.connection import Why, read_toml
from fleet.commands.session import Session, fleet_command

alerts_app = typer.Typer(
    help="See what needs a person, and say who looks after it.", no_args_is_help=True
)
_Alert = Annotated[int, typer.Argument(metavar="ID", min=1, help="The alert's number.")]


@fleet_command(alerts_app, "list")
def list_alerts(
    fleet: Session,
    *,
    state: Annotated[
        Literal["firing", "resolved", "all"], typer.Option(help="Which of them.")
    ] = "firing",
    kind: Annotated[str, typer.Option(help="Only of this kind, such as device-offline.")] = "",
) -> None:
    """List the alerts, newest first; without options those that fire.

    They are also sent to webhooks: edgeml webhooks add https://HOST/PATH
    """
    from fleet.show_alerts import alerts_text

    found = fleet.client.alerts("" if state == "all" else state, kind)
    fleet.show(found, alerts_text(found))


@fleet_command(alerts_app, "ack")
def acknowledge(
    fleet: Session,
    alert: _Alert,
    *,
    why: Annotated[str, typer.Option("--why", help="What is done about it.")],
) -> None:
    """Say that you look after an alert, and what you do; it fires on until its condition ends."""
    from fleet.show_alerts import alert_text

    found = fleet.client.acknowledge(alert, why)
    fleet.show(found, alert_text(found))


@fleet_command(alerts_app, "rules")
def rules(
    fleet: Session,
    file: Annotated[
        Path | None, typer.Argument(help="A TOML file with rules; without one they are shown.")
    ] = None,
    *,
    why: Why = "",
) -> None:
    """Show or set when alerts fire: a threshold a line, 0 turns a rule off.

    What a file does not name gets its default. Save what is shown, change it, and give it back.
    """
    from fleet.show_alerts import rules_text

    client = fleet.client
    found = client.set_alert_rules(read_toml(file), why) if file else client.alert_rules()
    fleet.show(found, rules_text(found))
