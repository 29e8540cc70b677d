"""What the fleet's commands share: how they find the fleet, read files and print."""

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from edgeml.errors import UserError
from edgeml.plain import plain

if TYPE_CHECKING:
    from fleet.client import FleetClient

FLEET = "http://127.0.0.1:8080"
DATA = Path("~/.local/share/edgeml/fleet")
_MAX_FILE = 1 << 20

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FleetUrl = Annotated[
    str, typer.Option("--fleet", envvar="EDGEML_FLEET", help="The fleet's address.")
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="EDGEML_TOKEN",
        show_default=False,
        help="An API token; otherwise that of edgeml login, or the operator's of the data folder.",
    ),
]
Data = Annotated[
    Path, typer.Option("--data", envvar="EDGEML_FLEET_DATA", help="The fleet's data folder.")
]
Why = Annotated[str, typer.Option("--why", help="The reason, kept in the audit log.")]
ReleaseName = Annotated[str, typer.Argument(metavar="MODEL:VERSION", help="Such as digits:1.2.0.")]


def connect(fleet: str, token: str, data: Path) -> "FleetClient":
    """A client of the fleet: as the token's owner, as who has logged in, or as the machine's owner.

    Raises:
        UserError: the address is none, or no token was given or found.
    """
    from cloud_sync.address import is_loopback
    from fleet import logins
    from fleet.client import FleetClient
    from fleet.keys import OPERATOR_TOKEN

    if not token and data == DATA and (login := logins.find(fleet)) is not None:
        token = login["token"]
    if not token and data == DATA and not is_loopback(urlsplit(fleet).hostname or ""):
        raise UserError(
            f"You are not logged in at {fleet}.",
            why="The operator's token of this machine is not sent to another one by itself.",
            fix="Run edgeml login, give --token, or --data with that fleet's folder.",
        )
    if not token:
        path = data.expanduser() / OPERATOR_TOKEN
        try:
            token = path.read_text().strip()
        except OSError as error:
            raise UserError(
                "You are not logged in, and the operator's token was not found.",
                why=f"{path}: {error.strerror}.",
                fix="Run edgeml login, give --token, or --data with the folder of edgeml fleet up.",
            ) from None
    return FleetClient(fleet, token)


def parse_labels(pairs: list[str]) -> dict[str, str]:
    """Labels from `KEY=VALUE`.

    Raises:
        UserError: one of them is none.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"{pair[:80]!r} is no label.", fix="Write --label site=north.")
        found[key] = value
    return found


def split_name(name: str) -> tuple[str, str]:
    """Model and version of `digits:1.2.0`.

    Raises:
        UserError: it names no release.
    """
    model, colon, version = name.partition(":")
    if not colon or not model or not version:
        raise UserError(f"{name[:80]!r} names no release.", fix="Write digits:1.2.0.")
    return model, version


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it cannot be read, is too large or no text.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise UserError(f"The file {path} is too large.")
        return data.decode()
    except OSError as error:
        raise UserError(
            f"The file {path} cannot be read.",
            why=f"{error.strerror}.",
            fix="Name a file that you may read.",
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"The file {path} is not text.") from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        UserError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"The file {path} is not valid TOML.", why=f"{error}.") from None


def show(body: Any, text: str, *, as_json: bool) -> None:
    """Print a result: the API's object as JSON, or text."""
    typer.echo(json.dumps(body, indent=2) if as_json else plain(text))
