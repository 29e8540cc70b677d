"""The commands `edgeml devices command ...`: have a device do something once."""

import base64
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeml.errors import DeviceError, RemoteError, UserError
from edgeml.plain import plain
from fleet.commands.connection import Why, show
from fleet.commands.session import Session, fleet_command

if TYPE_CHECKING:
    from fleet.client import FleetClient
    from fleet.resources import CommandInfo

command_app = typer.Typer(
    help="Have a device do something once: it is signed, expires, and is answered.",
    no_args_is_help=True,
)

_POLL_S = 0.5

Device = Annotated[str, typer.Argument(help="The device's id.")]
Ttl = Annotated[
    float, typer.Option("--ttl", min=1, help="Seconds after which the device refuses it.")
]
Wait = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait for the answer; 0: do not wait.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Write what it brought to this file instead.")
]


@fleet_command(command_app, "snapshot")
def snapshot(
    fleet: Session,
    device: Device,
    *,
    source: Annotated[str, typer.Option(help="The source; the first by default.")] = "",
    out: Out = None,
    wait: Wait = 60.0,
    ttl: Ttl = 3600.0,
    why: Why = "",
) -> None:
    """Fetch the next frame of a source, as JPEG.

    Example: edgeml devices command snapshot cam-1 --source belt --out belt.jpg
    """
    made = fleet.client.command(device, "snapshot", source=source, ttl_s=ttl, reason=why)
    _answer(fleet.client, made, wait, out, as_json=fleet.as_json)


@fleet_command(command_app, "log-tail")
def log_tail(
    fleet: Session,
    device: Device,
    *,
    lines: Annotated[int, typer.Option(min=1, max=2000, help="How many lines.")] = 200,
    out: Out = None,
    wait: Wait = 60.0,
    ttl: Ttl = 3600.0,
    why: Why = "",
) -> None:
    """Fetch the last lines of the agent's log."""
    made = fleet.client.command(device, "log-tail", lines=lines, ttl_s=ttl, reason=why)
    _answer(fleet.client, made, wait, out, as_json=fleet.as_json)


@fleet_command(command_app, "restart")
def restart(
    fleet: Session,
    device: Device,
    *,
    wait: Wait = 60.0,
    ttl: Ttl = 3600.0,
    why: Why = "",
) -> None:
    """Have the agent end, for its supervisor to start it again; refused where there is none."""
    made = fleet.client.command(device, "restart", ttl_s=ttl, reason=why)
    _answer(fleet.client, made, wait, None, as_json=fleet.as_json)


@fleet_command(command_app, "diagnostics")
def diagnostics(
    fleet: Session,
    device: Device,
    *,
    out: Out = None,
    wait: Wait = 60.0,
    ttl: Ttl = 3600.0,
    why: Why = "",
) -> None:
    """Have the device examine itself, as `edgeml agent doctor` does there."""
    made = fleet.client.command(device, "diagnostics", ttl_s=ttl, reason=why)
    _answer(fleet.client, made, wait, out, as_json=fleet.as_json)


@fleet_command(command_app, "show")
def show_command(
    fleet: Session,
    device: Device,
    command: Annotated[str, typer.Argument(help="The command's id.")],
    *,
    out: Out = None,
) -> None:
    """Show a command, and what it brought."""
    _show(fleet.client.command_of(device, command), out, as_json=fleet.as_json)


@fleet_command(command_app, "list")
def list_commands(
    fleet: Session,
    device: Device,
) -> None:
    """List the commands to a device, newest first."""
    from fleet.show import table, when

    found = fleet.client.commands(device)
    rows = [
        [i["id"], when(i["created_at"]), i["created_by"], i["kind"], _status(i), i["reason"]]
        for i in found
    ]
    head = ["command", "at", "by", "kind", "status", "why"]
    text = table(head, rows) if rows else f"Nothing was asked of {device}."
    fleet.show(found, text)


def _answer(
    client: "FleetClient", made: "CommandInfo", wait_s: float, out: Path | None, *, as_json: bool
) -> None:
    """Wait for a command's answer and show it.

    Raises:
        RemoteError: none came in time.
    """
    deadline = time.monotonic() + wait_s
    while made["status"] == "pending" and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        made = client.command_of(made["device"], made["id"])
    if made["status"] == "pending" and wait_s:
        raise RemoteError(
            f"{made['device']} has not answered within {wait_s:g} s.",
            why="It is away, or the command takes longer.",
            fix=f"Ask later: edgeml devices command show {made['device']} {made['id']}",
        )
    _show(made, out, as_json=as_json)


def _show(info: "CommandInfo", out: Path | None, *, as_json: bool) -> None:
    """Print a command and what it brought.

    Raises:
        DeviceError: the device did not do it.
        UserError: the file cannot be written.
    """
    if out is not None and info["content"]:
        try:
            out.write_bytes(_content(info))
        except OSError as error:
            raise UserError(f"{out} cannot be written.", why=f"{error.strerror}.") from None
        info = {**info, "content": ""}
    if as_json:
        show(info, "", as_json=True)
    else:
        typer.echo(f"{info['id']}  {info['kind']}  {_status(info)}", err=True)
        if info["content"] and not info["base64"]:
            typer.echo(plain(_text(info)))
        elif info["content"]:
            size = len(_content(info))
            typer.echo(f"{size:,} bytes of {info['media_type']}; write them with --out", err=True)
        if out is not None:
            typer.echo(f"written: {out}", err=True)
    if info["status"] not in {"done", "pending"}:
        if as_json:
            raise typer.Exit(DeviceError.exit_code)
        raise DeviceError(f"{info['device']} did not do it: {info['status']}.", why=info["reason"])


def _content(info: "CommandInfo") -> bytes:
    return base64.b64decode(info["content"]) if info["base64"] else info["content"].encode()


def _text(info: "CommandInfo") -> str:
    """What a command brought, for people: of diagnostics one line for each finding."""
    if info["kind"] != "diagnostics":
        return info["content"].rstrip("\n")
    from fleet.show import table

    try:
        brought = json.loads(info["content"])
        rows = [[f["grade"], f["check"], f["said"], f["fix"]] for f in brought["findings"]]
        rows += [
            [source["state"], f"source {name}", f"feeds {source['model']}", source["reason"]]
            for name, source in brought["sources"].items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return info["content"]  # of another version of the agent
    return table(["", "check", "found", "what to do"], rows)


def _status(info: "CommandInfo") -> str:
    if info["finished_at"] is None:
        return info["status"]
    return f"{info['status']} after {info['finished_at'] - info['created_at']:.1f} s"
