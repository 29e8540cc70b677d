"""The commands `edgeml rollout ...`."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from edgeml.errors import ExitCode
from fleet.commands.connection import (
    DATA,
    FLEET,
    AsJson,
    Data,
    FleetUrl,
    ReleaseName,
    Token,
    Why,
    connect,
    read_text,
    show,
    split_name,
)

rollout_app = typer.Typer(help="Roll releases out in waves.", no_args_is_help=True)

_Selector = Annotated[
    str | None, typer.Option("--selector", help="Label selector, such as site=north.")
]
_Policy = Annotated[
    Path | None, typer.Option("--policy", help="The rollout's policy, a TOML file.")
]
_Rollout = Annotated[str, typer.Argument(help="The rollout's id.")]
_WATCH_S = 1.0


@rollout_app.command("create")
def create(
    name: ReleaseName,
    *,
    policy: _Policy = None,
    selector: _Selector = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Create it even if it chooses no device now.")
    ] = False,
    why: Why = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Roll a release out; it begins at once."""
    from fleet.commands import forecast
    from fleet.show import rollout_text

    model, version = split_name(name)
    text = read_text(policy) if policy else ""
    with connect(fleet, token, data) as client:
        planned = client.plan(model, version, text, selector)
        if not planned["devices"] and not allow_empty:
            raise forecast.nobody(planned["selector"], client.devices())
        for note in forecast.shared(planned, client.rollouts(model)):
            typer.echo(f"note: {note}", err=True)
        found = client.create_rollout(model, version, text, selector, why)
    show(found, rollout_text(found), as_json=as_json)


@rollout_app.command("plan")
def plan(
    name: ReleaseName,
    *,
    policy: _Policy = None,
    selector: _Selector = None,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Show what a rollout would do, wave by wave and device by device, before it starts."""
    from fleet.commands import forecast
    from fleet.rollouts import parse_policy
    from fleet.show import plan_text

    model, version = split_name(name)
    text = read_text(policy) if policy else ""
    with connect(fleet, token, data) as client:
        found = client.plan(model, version, text, selector)
        devices, rollouts = client.devices(), client.rollouts(model)
    rules = parse_policy(text)
    taken = forecast.taken_by(rollouts)
    waves = forecast.waves(rules, found, taken)
    online = {d["device"] for d in devices if d["online"]}
    if found["devices"]:
        labels = [str(wave) for wave in rules.waves]
        printed = plan_text(found, list(zip(labels, waves, strict=True)), online, taken)
    else:
        said = forecast.nobody(found["selector"], devices)
        printed = f"{said.what} {said.why} {said.fix}"
    notes = [f"note: {note}" for note in forecast.shared(found, rollouts)]
    show(
        {
            **found,
            "waves": waves,
            "online": sorted(online & {d["device"] for d in found["devices"]}),
        },
        "\n".join([printed, *notes]),
        as_json=as_json,
    )


@rollout_app.command("list")
def list_rollouts(
    *,
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """List the rollouts, newest first."""
    from fleet.show import rollouts_text

    with connect(fleet, token, data) as client:
        found = client.rollouts(model)
    show(found, rollouts_text(found), as_json=as_json)


@rollout_app.command("status")
def status(
    rollout: _Rollout,
    *,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Show where a rollout stands, device by device."""
    from fleet.show import rollout_text

    with connect(fleet, token, data) as client:
        found = client.rollout(rollout)
    show(found, rollout_text(found), as_json=as_json)


@rollout_app.command("explain")
def explain(
    rollout: _Rollout,
    *,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Say why a rollout stands where it stands, with the numbers."""
    from fleet.show import explanation_text

    with connect(fleet, token, data) as client:
        found = client.explain(rollout)
    show(found, explanation_text(found), as_json=as_json)


@rollout_app.command("watch")
def watch(
    rollout: _Rollout,
    *,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Follow a rollout until it ends; exit code 3 if it was halted or aborted."""
    from fleet.show import rollout_line

    last = ""
    with connect(fleet, token, data) as client:
        while True:
            found = client.rollout(rollout)
            line = json.dumps(found) if as_json else rollout_line(found)
            if line != last:
                typer.echo(line)
                last = line
            if found["status"] == "completed":
                return
            if found["status"] in {"halted", "aborted"}:
                raise typer.Exit(ExitCode.GATE_FAILED)
            time.sleep(_WATCH_S)


@rollout_app.command("pause")
def pause(
    rollout: _Rollout,
    *,
    why: Why = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Give the release to no more devices, until it is resumed."""
    from fleet.show import rollout_text

    with connect(fleet, token, data) as client:
        found = client.pause(rollout, why)
    show(found, rollout_text(found), as_json=as_json)


@rollout_app.command("resume")
def resume(
    rollout: _Rollout,
    *,
    why: Why = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Go on with a paused rollout."""
    from fleet.show import rollout_text

    with connect(fleet, token, data) as client:
        found = client.resume(rollout, why)
    show(found, rollout_text(found), as_json=as_json)


@rollout_app.command("abort")
def abort(
    rollout: _Rollout,
    *,
    why: Why = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """End a rollout; its policy says whether devices get back what they ran before."""
    from fleet.show import rollout_text

    with connect(fleet, token, data) as client:
        found = client.abort(rollout, why)
    show(found, rollout_text(found), as_json=as_json)
