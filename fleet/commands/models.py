"""The commands `edgeml models ...`."""

import time
from typing import Annotated

import typer

from fleet.commands.session import Session, fleet_command

models_app = typer.Typer(help="See models, and what runs where.", no_args_is_help=True)


@fleet_command(models_app, "list")
def list_models(fleet: Session) -> None:
    """List the models, with their newest release and what devices run."""
    from fleet.show_alerts import models_text

    found = fleet.client.models()
    fleet.show(found, models_text(found))


@fleet_command(models_app, "show")
def show_model(
    fleet: Session, model: Annotated[str, typer.Argument(help="The model's name.")]
) -> None:
    """Show a model: its releases, and how many devices run which."""
    from fleet.show import releases_text
    from fleet.show_alerts import models_text

    found = fleet.client.model(model)
    releases = fleet.client.releases(model)
    text = f"{models_text([found])}\n\n{releases_text(releases)}"
    fleet.show({**found, "releases": releases}, text)


@fleet_command(models_app, "metrics")
def metrics(
    fleet: Session,
    model: Annotated[str, typer.Argument(help="The model's name; all of them without it.")] = "",
    *,
    hours: Annotated[float, typer.Option(min=0.02, help="How far to look back.")] = 24.0,
    step: Annotated[
        int, typer.Option(min=0, metavar="SECONDS", help="Of a line; 0: the best that fits.")
    ] = 0,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep apart by model, release, hardware_class, label:site or device; "
            "may be given again."
        ),
    ] = None,
    selector: Annotated[str, typer.Option(help="Label selector, such as site=north.")] = "",
    release: Annotated[str, typer.Option(help="Only of the release with this digest.")] = "",
    hardware_class: Annotated[
        str, typer.Option("--class", help="Only of this hardware class.")
    ] = "",
    device: Annotated[str, typer.Option(help="Only of this device.")] = "",
    stage: Annotated[
        str, typer.Option(help="Whose latency: wait, pre, inference, post or total.")
    ] = "inference",
) -> None:
    """Show how models do on the devices over time: rate, latency, errors, energy.

    The figures are those that devices report, summed up by minute, hour and day.

        edgeml models metrics digits --hours 6 --by release --by hardware_class
    """
    from fleet.show_counts import metrics_text

    now = time.time()
    found = fleet.client.metrics(
        begin=max(now - hours * 3600.0, 0.0),
        end=now,
        step_s=step,
        by=by or (),
        model=model,
        release=release,
        hardware_class=hardware_class,
        device=device,
        selector=selector,
        stage=stage,
    )
    fleet.show(found, metrics_text(found))
