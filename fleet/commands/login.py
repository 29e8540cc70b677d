"""The commands `edgeml login`, `logout` and `whoami`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeml.errors import UserError
from fleet.commands.connection import FLEET, AsJson, FleetUrl, read_text, show
from fleet.commands.session import Session, command

if TYPE_CHECKING:
    from fleet.access.resources import Login
    from fleet.logins import SavedLogin


def login(
    *,
    user: Annotated[str, typer.Option(help="Your name; otherwise it is asked for.")] = "",
    password_file: Annotated[
        Path | None, typer.Option(help="File with your password; otherwise it is asked for.")
    ] = None,
    new_password_file: Annotated[
        Path | None, typer.Option(help="File with your next password, where it is changed.")
    ] = None,
    change_password: Annotated[
        bool, typer.Option("--change-password", help="Change your password, too.")
    ] = False,
    fleet: FleetUrl = FLEET,
    as_json: AsJson = False,
) -> None:
    """Log in to a fleet: its commands then act as you, for twelve hours or until edgeml logout.

    A password that somebody else gave you is changed on the way. Programs use a token instead:
    edgeml tokens create.
    """
    from fleet import logins
    from fleet.client import FleetClient

    name = user or typer.prompt("User", err=True)
    password = _read(password_file, "Password")
    with FleetClient(fleet, "") as client:
        found = client.login(name, password)
    if change_password or found["me"]["must_change_password"]:
        with FleetClient(fleet, found["token"]) as client:
            found = client.change_password(password, _new_password(new_password_file))
    logins.save(fleet, _saved(found))
    text = f"You are {name}, {found['me']['role']}. Log out: edgeml logout"
    show({**found["me"], "expires_at": found["expires_at"]}, text, as_json=as_json)


def logout(*, fleet: FleetUrl = FLEET, as_json: AsJson = False) -> None:
    """Log out of a fleet: the session ends there, and is forgotten here."""
    from fleet import logins
    from fleet.client import FleetClient

    found = logins.find(fleet)
    if found is None:
        raise UserError(f"You are not logged in to {fleet}.", fix="Log in: edgeml login")
    with FleetClient(fleet, found["token"]) as client:
        logins.save(fleet, None)
        client.logout()
    show({"user": found["user"]}, f"{found['user']} is logged out.", as_json=as_json)


@command
def whoami(fleet: Session) -> None:
    """Say who you are to the fleet, in which role, and which devices you see."""
    from fleet.show_access import me_text

    found = fleet.client.me()
    fleet.show(found, me_text(found))


def _saved(found: "Login") -> "SavedLogin":
    return {
        "token": found["token"],
        "user": found["me"]["user"],
        "expires_at": found["expires_at"],
    }


def _new_password(file: Path | None) -> str:
    if file is None and sys.stdin.isatty():
        typer.echo("Choose a new password, of twelve characters or more.", err=True)
        return str(
            typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
        )
    return _read(file, "New password")


def _read(file: Path | None, what: str) -> str:
    if file is not None:
        return read_text(file).rstrip("\r\n")
    if not sys.stdin.isatty():
        option = f"--{what.lower().replace(' ', '-')}-file"
        raise UserError(
            f"The {what.lower()} cannot be asked for.",
            why="There is no terminal.",
            fix=f"Give it in a file: {option}",
        )
    return str(typer.prompt(what, hide_input=True, err=True))
