"""`edgeml agent`: enrol a device, run its daemon, look at it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The daemon on a device: enrol it, run it, look at it.", no_args_is_help=True
)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def enroll(
    *,
    device: Annotated[str, typer.Option(help="The device's id, for which the token was made.")],
    fleet: Annotated[str, typer.Option(help="The fleet's device listener, https://HOST:8081.")],
    token: Annotated[str, typer.Option(help="The one-time token of `edgeml fleet enroll`.")],
    data: Annotated[Path, typer.Option(help="A new folder for the device's identity and data.")],
    as_json: _Json = False,
) -> None:
    """Trade a one-time token for an identity and write DATA/agent.toml.

    The device's key is made here and never leaves the device.
    """
    import json

    from edge_agent.identity import enroll_device

    config = enroll_device(fleet, device, token, data)
    if as_json:
        typer.echo(json.dumps({"device": device, "config": str(config)}))
    else:
        typer.echo(f"{device} is enrolled. Run it: edgeml agent run --config {config}")


@app.command()
def run(
    *,
    config: Annotated[Path, typer.Option(help="The agent.toml that enrolling wrote.")],
) -> None:
    """Run the daemon until Ctrl-C or SIGTERM.

    It runs what it last committed at once, with or without a network, and takes from the
    fleet its sources, its configuration and its updates.
    """
    import logging
    import os
    import signal

    from edge_agent.agent import Agent
    from edge_agent.identity import load_identity

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # A pipe, since a handler may run anywhere, also inside the locks of an Event.
    asked, ask = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(ask, b"!"))
    Agent(load_identity(config)).run(lambda: _wait(asked))


@app.command()
def status(
    *,
    config: Annotated[Path, typer.Option(help="The agent.toml that enrolling wrote.")],
    as_json: _Json = False,
) -> None:
    """Say what this device runs and where an update stands, from its own journal."""
    import msgspec

    from edge_agent.identity import load_config
    from edge_agent.update.journal import read_state

    agent = load_config(config)
    reported = read_state(Path(agent.data_dir) / "state.json").reported()
    if as_json:
        typer.echo(msgspec.json.encode(reported).decode())
        return
    typer.echo(
        f"{agent.device}: desired state ({reported.desired_epoch}, {reported.desired_counter})"
    )
    for model, state in reported.models.items():
        running = state.running_version or "nothing"
        typer.echo(f"  {model}: runs {running}, {state.phase} {state.reason}".rstrip())
    if not reported.models:
        typer.echo("  no model yet; roll one out: edgeml rollout create --help")
    if reported.config_error:
        typer.echo(f"  configuration refused: {reported.config_error}")


def _wait(asked: int) -> None:
    import os

    os.read(asked, 1)
