"""The commands `edgeml rollout ...`."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeml.errors import ExitCode
from edgeml.plain import plain
from fleet.commands.connection import ReleaseName, Why, read_text, split_name
from fleet.commands.session import Session, fleet_command

if TYPE_CHECKING:
    from fleet.client import FleetClient
    from fleet.resources import BlockInfo, RolloutInfo

rollout_app = typer.Typer(help="Roll releases out in waves.", no_args_is_help=True)

_Selector = Annotated[
    str | None, typer.Option("--selector", help="Label selector, such as site=north.")
]
_Policy = Annotated[
    Path | None, typer.Option("--policy", help="The rollout's policy, a TOML file.")
]
_Rollout = Annotated[str, typer.Argument(help="The rollout's id.")]
_Class = Annotated[str, typer.Argument(metavar="CLASS", help="Such as x86_64-avx512_vnni-2c.")]
_OPEN = {"draft", "running", "paused"}
_WATCH_S = 1.0


@fleet_command(rollout_app, "create")
def create(
    fleet: Session,
    name: ReleaseName,
    *,
    policy: _Policy = None,
    selector: _Selector = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Create it even if it chooses no device now.")
    ] = False,
    draft: Annotated[
        bool, typer.Option("--draft", help="Do not begin: `edgeml rollout start` does.")
    ] = False,
    why: Why = "",
) -> None:
    """Roll a release out; it begins at once, unless it is a draft."""
    from fleet.commands import forecast

    model, version = split_name(name)
    text = read_text(policy) if policy else ""
    client = fleet.client
    planned = client.plan(model, version, text, selector)
    if not planned["devices"] and not allow_empty:
        raise forecast.nobody(planned["selector"], client.devices())
    for note in forecast.shared(planned, _under_way(client, model)):
        fleet.remark(f"note: {note}")
    _shown(fleet, client.create_rollout(model, version, text, selector, why, draft=draft))


@fleet_command(rollout_app, "plan")
def plan(
    fleet: Session, name: ReleaseName, *, policy: _Policy = None, selector: _Selector = None
) -> None:
    """Show what a rollout would do, wave by wave and device by device, before it starts."""
    from fleet.commands import forecast
    from fleet.rollouts import parse_policy
    from fleet.show import plan_text

    model, version = split_name(name)
    text = read_text(policy) if policy else ""
    client = fleet.client
    found = client.plan(model, version, text, selector)
    rollouts = _under_way(client, model)
    rules = parse_policy(text)
    taken = forecast.taken_by(rollouts)
    waves = forecast.waves(rules, found, taken)
    online = {d["device"] for d in found["devices"] if d["online"]}
    if found["devices"]:
        labels = [str(wave) for wave in rules.waves]
        printed = plan_text(found, list(zip(labels, waves, strict=True)), online, taken)
    else:
        said = forecast.nobody(found["selector"], client.devices())
        printed = f"{said.what} {said.why} {said.fix}"
    notes = [f"note: {note}" for note in forecast.shared(found, rollouts)]
    body = {**found, "waves": waves, "online": sorted(online)}
    fleet.show(body, "\n".join([printed, *notes]))


@rollout_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the policy, for editors that complete and check TOML."""
    from fleet.rollouts.policy import schema as of_policy

    typer.echo(json.dumps(of_policy(), indent=2))


@fleet_command(rollout_app, "list")
def list_rollouts(
    fleet: Session, *, model: Annotated[str, typer.Option(help="Only of this model.")] = ""
) -> None:
    """List the rollouts, newest first."""
    from fleet.show import rollouts_text

    found = fleet.client.rollouts(model)
    fleet.show(found, rollouts_text(found))


@fleet_command(rollout_app, "status")
def status(fleet: Session, rollout: _Rollout) -> None:
    """Show where a rollout stands, device by device."""
    from fleet.show import rollout_text

    found = fleet.client.rollout(rollout)
    fleet.show(found, rollout_text(found))


@fleet_command(rollout_app, "explain")
def explain(fleet: Session, rollout: _Rollout) -> None:
    """Say why a rollout stands where it stands, with the numbers."""
    from fleet.show import explanation_text

    found = fleet.client.explain(rollout)
    fleet.show(found, explanation_text(found))


@fleet_command(rollout_app, "cost")
def cost(fleet: Session, rollout: _Rollout) -> None:
    """Show what a rollout cost so far: bytes and money, device by device, the dearest first."""
    from fleet.show import costs_text

    found = fleet.client.cost(rollout)
    fleet.show(found, costs_text(found))


@fleet_command(rollout_app, "watch")
def watch(fleet: Session, rollout: _Rollout) -> None:
    """Follow a rollout until it ends; exit code 3 if a gate stopped it or it was aborted."""
    from fleet.show import rollout_line

    last = ""
    while True:
        found = fleet.client.rollout(rollout)
        line = json.dumps(found) if fleet.as_json else rollout_line(found)
        if line != last:
            typer.echo(plain(line))
            last = line
        if found["status"] == "completed":
            return
        if found["status"] in {"halted", "aborted"} or _is_stopped(fleet.client, found):
            raise typer.Exit(ExitCode.GATE_FAILED)
        time.sleep(_WATCH_S)


@fleet_command(rollout_app, "start")
def start(fleet: Session, rollout: _Rollout, *, why: Why = "") -> None:
    """Let a draft begin."""
    _shown(fleet, fleet.client.start(rollout, why))


@fleet_command(rollout_app, "approve")
def approve(fleet: Session, rollout: _Rollout, *, why: Why = "") -> None:
    """Let a rollout begin, or its present wave, as its policy's `approval` asks.

    Nobody approves a rollout of their own, but for an admin with a reason.
    """
    _shown(fleet, fleet.client.approve(rollout, why))


@fleet_command(rollout_app, "pause")
def pause(fleet: Session, rollout: _Rollout, *, why: Why = "") -> None:
    """Give the release to no more devices, until it is resumed."""
    _shown(fleet, fleet.client.pause(rollout, why))


@fleet_command(rollout_app, "resume")
def resume(fleet: Session, rollout: _Rollout, *, why: Why = "") -> None:
    """Go on with a paused rollout."""
    _shown(fleet, fleet.client.resume(rollout, why))


@fleet_command(rollout_app, "abort")
def abort(fleet: Session, rollout: _Rollout, *, why: Why = "") -> None:
    """End a rollout; its policy says whether devices get back what they ran before."""
    _shown(fleet, fleet.client.abort(rollout, why))


@fleet_command(rollout_app, "retry")
def retry(
    fleet: Session,
    rollout: _Rollout,
    *,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="Only this one; may be given several times."),
    ] = None,
    why: Why = "",
) -> None:
    """Try again the devices that failed or refused; the rollout goes on, if it had stopped."""
    _shown(fleet, fleet.client.retry(rollout, device or [], why))


@fleet_command(rollout_app, "override")
def override(
    fleet: Session,
    rollout: _Rollout,
    gate: Annotated[str, typer.Argument(help="Its name, as `edgeml rollout explain` shows it.")],
    *,
    why: Annotated[str, typer.Option("--why", help="The reason; it is needed and audited.")],
) -> None:
    """Let a gate of the present wave pass, though it fails or is undecided.

    It counts in this wave alone and for a result that is no worse than now. A rollout that the
    gate has paused goes on with `edgeml rollout resume`. Where the policy asks for approval, nobody
    overrides a gate of their own rollout, but for an admin.
    """
    _shown(fleet, fleet.client.override(rollout, gate, why))


@fleet_command(rollout_app, "rollback")
def rollback(
    fleet: Session,
    rollout: _Rollout,
    *,
    to: Annotated[
        str, typer.Option("--to", help="The version; by default the one that ran before.")
    ] = "",
    why: Why = "",
) -> None:
    """Roll the devices that a rollout reached back to a version by its name, all at once.

    The rollout must have ended; that of the earlier version is one of its own, with a trial on
    each device.
    """
    _shown(fleet, fleet.client.rollback(rollout, to, why))


@fleet_command(rollout_app, "block")
def block(fleet: Session, name: ReleaseName, hardware_class: _Class, *, why: Why = "") -> None:
    """Give a release to no device of a hardware class any more; wants a reason."""
    _show_blocks(fleet, fleet.client.block(*split_name(name), hardware_class, why))


@fleet_command(rollout_app, "unblock")
def unblock(fleet: Session, name: ReleaseName, hardware_class: _Class, *, why: Why = "") -> None:
    """Let devices of a hardware class have a release again; wants a reason."""
    _show_blocks(fleet, fleet.client.unblock(*split_name(name), hardware_class, why))


@fleet_command(rollout_app, "blocks")
def blocks(fleet: Session) -> None:
    """List the releases that no device of a hardware class is given any more, and why."""
    _show_blocks(fleet, fleet.client.blocks())


def _shown(fleet: Session, found: "RolloutInfo") -> None:
    from fleet.show import rollout_summary

    fleet.show(found, rollout_summary(found))


def _show_blocks(fleet: Session, found: list["BlockInfo"]) -> None:
    from fleet.show import table

    rows = [
        [f"{b['model']}:{b['version']}", b["hardware_class"], b["blocked_by"], b["reason"]]
        for b in found
    ]
    head = ["release", "class", "by", "why"]
    fleet.show(found, table(head, rows) if rows else "No release is blocked.")


def _under_way(client: "FleetClient", model: str) -> list["RolloutInfo"]:
    """The rollouts of a model that have not ended, with their devices."""
    return [client.rollout(r["id"]) for r in client.rollouts(model) if r["status"] in _OPEN]


def _is_stopped(client: "FleetClient", found: "RolloutInfo") -> bool:
    """Whether a gate that failed has paused it."""
    if found["status"] != "paused":
        return False
    gates = client.explain(found["id"])["gates"]
    return any(gate["result"] == "fail" for gate in gates)
