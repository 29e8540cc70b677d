"""The commands `edgeml tokens ...`."""

from typing import Annotated

import typer

from fleet.commands.connection import Why
from fleet.commands.session import Session, fleet_command
from fleet.roles import Role

DAY_S = 86400.0
tokens_app = typer.Typer(
    help="Make and revoke API tokens, for programs that speak to the fleet.", no_args_is_help=True
)


@fleet_command(tokens_app, "list")
def list_tokens(fleet: Session) -> None:
    """List your tokens, the newest first; an admin sees everybody's."""
    from fleet.show_access import tokens_text

    found = fleet.client.tokens()
    fleet.show(found, tokens_text(found))


@fleet_command(tokens_app, "create")
def create_token(
    fleet: Session,
    name: Annotated[str, typer.Argument(help="What the audit log calls it, such as ci.")],
    *,
    role: Annotated[
        Role | None, typer.Option(help="What it may do; at most, and otherwise, what you may.")
    ] = None,
    scope: Annotated[str, typer.Option(help="Label selector that narrows what you see.")] = "",
    days: Annotated[float, typer.Option(min=0.001, max=366, help="Days that it is good.")] = 90.0,
    why: Why = "",
) -> None:
    """Make a token and print it, this once: the fleet keeps only its hash.

    Use it as EDGEML_TOKEN, or as Authorization: Bearer. Example:
    edgeml tokens create ci --role operator --scope site=test --days 30
    """
    made = fleet.client.create_token(name, role=role, scope=scope, ttl_s=days * DAY_S, reason=why)
    fleet.remark(f"{name} is good for {days:g} days; end it: edgeml tokens revoke {made['id']}")
    fleet.show(made, made["token"])


@fleet_command(tokens_app, "revoke")
def revoke_token(
    fleet: Session,
    ended: Annotated[str, typer.Argument(metavar="ID", help="As edgeml tokens list shows it.")],
    *,
    why: Why = "",
) -> None:
    """End a token at once."""
    found = fleet.client.revoke_token(ended, why)
    fleet.show(found, f"{found['name']} is good no more.")
