"""The commands `edgeml models ...`."""

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
