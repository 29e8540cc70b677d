"""The commands `edgeml releases ...`."""

from pathlib import Path
from typing import Annotated

import typer

from edgeml.errors import UserError
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
    show,
    split_name,
)
from fleet.commands.trust import sign_pushed

releases_app = typer.Typer(help="Push releases to the fleet.", no_args_is_help=True)


@releases_app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(help="The folder that edgeml convert wrote.")],
    *,
    version: Annotated[
        str | None, typer.Option(help="Which release, if the folder holds several.")
    ] = None,
    sign_key: Annotated[
        Path | None,
        typer.Option(metavar="NAME.key", help="Sign the release with this key of yours."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name each blob.")] = False,
    why: Why = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Push a release to the fleet's registry and register it."""
    from fleet.show import release_text

    sizes: dict[str, int] = {}  # what variants share is told of once for each

    def tell(digest: str, size: int) -> None:
        if verbose and digest not in sizes:
            typer.echo(f"  {digest} {size:,} bytes", err=True)
        sizes[digest] = size

    with connect(fleet, token, data) as client:
        found = client.push(folder, version, on_blob=tell, reason=why)
        if sign_key is not None and found["trust"] != "signed":
            sign_pushed(client, folder, version, sign_key, why)
            found = client.release(found["model"], found["version"])
    total = f"{len(sizes)} blobs, {sum(sizes.values()):,} bytes"
    typer.echo(f"{total}, are in the fleet's registry.", err=True)
    if found["trust"] == "waits for signatures":
        typer.echo("No rollout begins with it before it is signed: edgeml trust show", err=True)
    show(found, release_text(found), as_json=as_json)


@releases_app.command("list")
def list_releases(
    *,
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """List the releases, newest first."""
    from fleet.show import releases_text

    with connect(fleet, token, data) as client:
        found = client.releases(model)
        models = [m["model"] for m in client.models()] if model and not found else []
    if models:
        raise UserError(
            f"There is no release of a model {model[:128]!r}.",
            why=f"The fleet has releases of {', '.join(models)}.",
            fix="Name one of these with --model, or push one: edgeml releases push FOLDER",
        )
    show(found, releases_text(found), as_json=as_json)


@releases_app.command("show")
def show_release(
    name: ReleaseName,
    *,
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Show a release and its variants."""
    from fleet.show import release_text

    with connect(fleet, token, data) as client:
        found = client.release(*split_name(name))
    show(found, release_text(found), as_json=as_json)
