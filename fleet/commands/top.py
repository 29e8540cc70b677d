"""The command `edgeml top`: the fleet at a glance, live."""

import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from fleet.commands.session import Session, command

if TYPE_CHECKING:
    from fleet.client import FleetClient
    from fleet.overview import Overview

_OPEN = frozenset({"running", "paused", "halted", "draft", "scheduled"})


@command
def top(
    fleet: Session,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    every_s: Annotated[
        float, typer.Option("--every", min=0.2, help="Seconds between two looks.")
    ] = 2.0,
) -> None:
    """Watch the fleet: health, alerts, rollouts and what runs where; ends with Ctrl-C.

    With --once, or where no terminal is, it is shown once; with --json it is one object.
    """
    from rich.console import Console

    from fleet.overview import render

    console = Console()
    if fleet.as_json or once or not console.is_terminal:
        found = look(fleet.client)
        if fleet.as_json:
            fleet.show(msgspec.to_builtins(found), "")
        else:
            console.print(render(found, time.time()))
        return
    with contextlib.suppress(KeyboardInterrupt):
        _live(fleet.client, console, every_s)


def look(client: "FleetClient", before: "Overview | None" = None, seconds: float = 0) -> "Overview":
    """One look at the fleet; with the look before it, also what was counted a second."""
    from fleet.overview import Overview, rates

    health = client.health()
    counted = before.health["counters"] if before else {}
    return Overview(
        health=health,
        alerts=client.alerts("firing"),
        rollouts=[r for r in client.rollouts() if r["status"] in _OPEN],
        models=client.models(),
        rates=rates(counted, health["counters"], seconds) if before else {},
    )


def _live(client: "FleetClient", console: object, every_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from fleet.overview import render

    assert isinstance(console, Console)
    found, at = look(client), time.monotonic()
    with Live(render(found, time.time()), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            now = time.monotonic()
            found, at = look(client, found, now - at), now
            live.update(render(found, time.time()), refresh=True)
