"""The commands `edgeml devices configuration ...`: what devices are configured by, and changes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeml.errors import UserError
from fleet.commands.connection import Why, read_text, read_toml
from fleet.commands.session import Session, fleet_command

configuration_app = typer.Typer(
    help="Configure the fleet, the devices of a label, or one device; the narrower wins.",
    no_args_is_help=True,
)

_FLEET = "fleet"
_Device = Annotated[str, typer.Argument(help="The device's id.")]
_File = Annotated[Path, typer.Argument(help="The settings, a TOML file; all that the layer says.")]
_Layer = Annotated[
    str, typer.Option("--layer", help="The layer: fleet, or a name such as site-north.")
]
_Selector = Annotated[
    str | None,
    typer.Option("--selector", help="Of a new layer: the label selector of its devices."),
]
_Priority = Annotated[
    int | None,
    typer.Option(
        "--priority", help="Of a new layer: of two that choose a device, the higher wins."
    ),
]


@fleet_command(configuration_app, "show")
def show_configuration(
    fleet: Session,
    device: _Device,
    *,
    origin: Annotated[
        bool, typer.Option("--origin", help="Say of each value which layer it comes from.")
    ] = False,
) -> None:
    """Show a device's configuration, merged of its layers, and whether the device follows it."""
    from fleet.show_configuration import configuration_text

    found = fleet.client.configuration(device)
    fleet.show(found, configuration_text(found, origin=origin))


@fleet_command(configuration_app, "set")
def set_device(fleet: Session, device: _Device, file: _File, *, why: Why = "") -> None:
    """Replace what a device's own layer says; it goes out at once."""
    from fleet.show_configuration import configuration_text

    fleet.client.configure(device, read_toml(file), why)
    found = fleet.client.configuration(device)
    fleet.show(found, configuration_text(found, origin=True))


@fleet_command(configuration_app, "clear")
def clear_device(fleet: Session, device: _Device, *, why: Why = "") -> None:
    """Empty a device's own layer: it is configured by the fleet's and its labels' alone."""
    from fleet.show_configuration import configuration_text

    fleet.client.configure(device, {}, why)
    found = fleet.client.configuration(device)
    fleet.show(found, configuration_text(found, origin=True))


@fleet_command(configuration_app, "layers")
def list_layers(fleet: Session) -> None:
    """List the layers of the fleet and of labels, in the order in which they win."""
    from fleet.show_configuration import layers_text

    found = fleet.client.layers()
    fleet.show(found, layers_text(found))


@fleet_command(configuration_app, "layer")
def show_layer(
    fleet: Session, layer: Annotated[str, typer.Argument(help="fleet, or a layer's name.")]
) -> None:
    """Show what a layer says, and its history."""
    from fleet.show_configuration import layer_text

    found = fleet.client.layer(layer)
    fleet.show(found, layer_text(found))


@fleet_command(configuration_app, "plan")
def plan_layer(
    fleet: Session,
    file: _File,
    *,
    layer: _Layer = _FLEET,
    selector: _Selector = None,
    priority: _Priority = None,
) -> None:
    """Show what a change of a layer would do, device by device, before it starts."""
    from fleet.show_configuration import plan_text

    found = fleet.client.plan_layer(layer, read_toml(file), selector=selector, priority=priority)
    fleet.show(found, plan_text(found))


@fleet_command(configuration_app, "rollout")
def roll_out(
    fleet: Session,
    file: _File,
    *,
    layer: _Layer = _FLEET,
    selector: _Selector = None,
    priority: _Priority = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="The rollout's policy, a TOML file.")
    ] = None,
    why: Why = "",
) -> None:
    """Change a layer in waves, like a release: each device tries it, and answers if it refuses.

    The layer `fleet` is for all devices, another for those that its selector chooses. What a
    narrower layer sets stays. Follow it with: edgeml rollout watch. An abort, or a gate that
    fails, gives devices back what they had.
    """
    settings = read_toml(file)
    text = read_text(policy) if policy else ""
    found = fleet.client.change_layer(
        layer, settings, text, why, selector=selector, priority=priority
    )
    fleet.show(found, _begun(found))


@fleet_command(configuration_app, "undo")
def undo_layer(
    fleet: Session,
    layer: Annotated[str, typer.Argument(help="fleet, or a layer's name.")],
    number: Annotated[int, typer.Argument(help="The revision to go back to; 0 is empty.")],
    *,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="The rollout's policy, a TOML file.")
    ] = None,
    why: Why = "",
) -> None:
    """Roll out again what a layer said before, in waves."""
    known = {r["number"]: r["settings"] for r in fleet.client.layer(layer)["revisions"]}
    if number not in known | {0: {}}:
        raise UserError(
            f"The layer {layer} has no revision {number}.",
            fix=f"See them: edgeml devices configuration layer {layer}",
        )
    text = read_text(policy) if policy else ""
    found = fleet.client.change_layer(layer, known.get(number, {}), text, why)
    fleet.show(found, _begun(found))


def _begun(found: Any) -> str:
    from fleet.rollouts.gates import count

    name = f"{found['layer']}@{found['number']}"
    if found["rollout"] is None:
        return f"{name} changes no device, and holds now."
    return (
        f"{name} changes {count(found['changed'])}, in waves: {found['rollout']}\n"
        f"Follow it: edgeml rollout watch {found['rollout']}"
    )
