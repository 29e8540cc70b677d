"""The one place where commands that speak to a fleet get their options and their client.

    @fleet_command(devices_app, "list")
    def list_devices(fleet: Session, *, selector: Selector = "") -> None:
        found = fleet.client.devices(selector)
        fleet.show(found, devices_text(found))

has `--fleet`, `--token`, `--data` and `--json` besides its own, and a client that is closed at
its end.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, get_type_hints

import typer

from edgeml.plain import plain
from fleet.commands.connection import (
    DATA,
    FLEET,
    AsJson,
    Data,
    FleetUrl,
    Token,
    connect,
    show,
)

if TYPE_CHECKING:
    from fleet.client import FleetClient

P = ParamSpec("P")


@dataclass(frozen=True)
class Session:
    """What a command works with: the fleet's client, and how its result is wanted."""

    client: "FleetClient"
    as_json: bool

    def show(self, body: Any, text: str) -> None:
        """Print a result: the API's object as JSON, or text."""
        show(body, text, as_json=self.as_json)

    def remark(self, text: str) -> None:
        """Print a remark to standard error, where no program reads it as the result."""
        typer.echo(plain(text), err=True)


def fleet_command(
    app: typer.Typer, name: str
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[Concatenate[Session, P], None]]:
    """Make a function a command of an application: its first argument is given, not typed."""

    def register(
        function: Callable[Concatenate[Session, P], None],
    ) -> Callable[Concatenate[Session, P], None]:
        app.command(name)(command(function))
        return function

    return register


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function that Typer is given: with the options of a connection, without the session."""

    @wraps(function)
    def run(*, fleet: str, token: str, data: Path, as_json: bool, **given: Any) -> None:
        with connect(fleet, token, data) as client:
            function(Session(client, as_json), **given)

    hints = get_type_hints(function, include_extras=True)
    _, *own = inspect.signature(function).parameters.values()
    options = [
        _option("fleet", FleetUrl, FLEET),
        _option("token", Token, ""),
        _option("data", Data, DATA),
        _option("as_json", AsJson, False),
    ]
    parameters = [p.replace(annotation=hints[p.name]) for p in own] + options
    # Typer reads both; `__wrapped__` would show it the function as it was written.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__
    return run


def _option(name: str, kind: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
