"""Every command of the fleet prints JSON for machines, and has its options from one place."""

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from edgeml.cli import app

FLEETS = {
    "alerts",
    "audit",
    "devices",
    "fleet",
    "login",
    "logout",
    "models",
    "releases",
    "rollout",
    "simulate",
    "tokens",
    "top",
    "trust",
    "users",
    "webhooks",
    "whoami",
}
CANNOT = {
    "rollout schema": "prints JSON as it is",
}


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for word, found in getattr(command, "commands", {}).items():
        yield from commands(found, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command


def of_the_fleet() -> list[tuple[str, Any]]:
    every = commands(get_command(app))
    return [(name, found) for name, found in every if name.split()[0] in FLEETS]


def options(command: Any) -> dict[str, Any]:
    return {option: parameter for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize(
    ("name", "command"), of_the_fleet(), ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_command_prints_json_or_says_why_it_cannot(name: str, command: Any) -> None:
    assert ("--json" in options(command)) != (name in CANNOT), name


def test_what_speaks_to_a_fleet_finds_it_by_the_same_options() -> None:
    for name, command in of_the_fleet():
        found = options(command)
        if "--fleet" in found and "--token" in found:
            assert found["--fleet"].envvar == "EDGEML_FLEET", name
            assert found["--token"].envvar == "EDGEML_TOKEN", name
            assert found["--data"].envvar == "EDGEML_FLEET_DATA", name


def test_every_command_teaches() -> None:
    for name, command in of_the_fleet():
        assert len(command.help or "") > 10, name
        for parameter in command.params:
            hidden = getattr(parameter, "hidden", False)
            assert hidden or getattr(parameter, "help", "x"), (name, parameter.name)
