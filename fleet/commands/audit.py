"""The commands `edgeml audit ...`."""

from typing import Annotated

import typer

from fleet.commands.session import Session, fleet_command

audit_app = typer.Typer(
    help="See who did what and why, and check that nobody changed it.", no_args_is_help=True
)


@fleet_command(audit_app, "list")
def list_audit(
    fleet: Session,
    *,
    who: Annotated[str, typer.Option(help="Only what this user or token did.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many entries at most.")] = 50,
) -> None:
    """List the audit log, newest first."""
    from fleet.show_access import audit_text

    found = fleet.client.audit(limit=limit, who=who)
    fleet.show(found, audit_text(found))


@fleet_command(audit_app, "verify")
def verify_audit(fleet: Session) -> None:
    """Check the chain of hashes: each entry covers the one before it, from the first on.

    Exits with 7 where an entry was changed, removed or added later.
    """
    entries = fleet.client.verify_audit()
    fleet.show({"entries": entries}, f"The audit log holds: {entries} entries.")
