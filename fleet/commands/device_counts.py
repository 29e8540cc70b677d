"""The commands `edgeml devices count` and `edgeml devices label`: many devices at once."""

from typing import Annotated

import typer

from edgeml.errors import UserError
from fleet.commands.connection import Why, parse_labels
from fleet.commands.session import Session, command

_MOST = 500  # devices of one request
_Selector = Annotated[str, typer.Option(help="Label selector, such as site=north.")]


def add(devices_app: typer.Typer) -> None:
    """Add the commands to `edgeml devices`."""
    devices_app.command("count")(count)
    devices_app.command("label")(label)


@command
def count(
    fleet: Session,
    *,
    selector: _Selector = "",
    by: Annotated[
        str, typer.Option("--by", metavar="LABEL", help="Count by the values of a label, too.")
    ] = "",
    state: Annotated[str, typer.Option(help="Only online, offline or revoked ones.")] = "",
    hardware_class: Annotated[
        str, typer.Option("--class", help="Only of this hardware class.")
    ] = "",
    model: Annotated[str, typer.Option(help="Only those that report this model.")] = "",
    version: Annotated[str, typer.Option(help="Only those that run this version of it.")] = "",
    phase: Annotated[str, typer.Option(help="Only those in this phase of it: trial, ...")] = "",
    name: Annotated[str, typer.Option(help="Only those with this in their id.")] = "",
) -> None:
    """Count the devices: in all, by hardware class, by what they run, and by a label.

    With --state, --class, --model, --version, --phase or --name it is one number.

        edgeml devices count --by site
        edgeml devices count --selector site=north --state offline
    """
    from fleet.show_counts import census_text

    like = {
        "state": state,
        "hardware_class": hardware_class,
        "model": model,
        "version": version,
        "phase": phase,
        "name": name,
    }
    if not any(like.values()):
        found = fleet.client.census(selector, by)
        fleet.show(found, census_text(found, by))
        return
    if by:
        raise UserError(
            "--by cannot be combined with what narrows a count to one number.",
            fix="Narrow it with --selector, or leave --by away.",
        )
    number = fleet.client.count_devices(selector, **like)
    fleet.show({"count": number}, f"{number:,} device{'' if number == 1 else 's'}")


@command
def label(
    fleet: Session,
    device: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Their ids.")
    ] = None,
    *,
    selector: Annotated[
        str, typer.Option(help="Label selector of devices, in place of their ids.")
    ] = "",
    put: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="May be given again.")
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="KEY", help="A label to take away; may be given again."),
    ] = None,
    why: Why = "",
) -> None:
    """Set labels of devices and take others away; the labels that are not named stay.

    Rollouts, layers of configuration and scopes choose devices by their labels.

        edgeml devices label cam-1 cam-2 --set site=north --drop trial
    """
    if not put and not drop:
        raise UserError("No label is named.", fix="Give --set KEY=VALUE or --drop KEY.")
    if bool(device) == bool(selector):
        raise UserError("Which devices?", fix="Name them, or choose them with --selector.")
    names = list(device or (one["device"] for one in fleet.client.devices(selector)))
    changed = 0
    labels = parse_labels(put or [])
    for begin in range(0, len(names), _MOST):
        some = names[begin : begin + _MOST]
        changed += fleet.client.label_devices(some, labels, drop or (), why)
    same = len(names) - changed
    text = f"{changed} device{'' if changed == 1 else 's'} changed"
    text += f", {same} had {'it' if same == 1 else 'them'} so already." if same else "."
    fleet.show({"changed": changed, "devices": names}, text)
