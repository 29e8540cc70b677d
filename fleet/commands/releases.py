"""The commands `edgeml releases ...`."""

from pathlib import Path
from typing import Annotated

import typer

from edgeml.errors import UserError
from fleet.commands import bundles, upkeep
from fleet.commands.connection import (
    AsJson,
    ReleaseName,
    Why,
    show,
    split_name,
)
from fleet.commands.session import Session, fleet_command
from fleet.commands.trust import sign_pushed

releases_app = typer.Typer(help="Push, look at, carry and remove releases.", no_args_is_help=True)


@fleet_command(releases_app, "push")
def push(
    fleet: Session,
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
) -> None:
    """Push a release to the fleet's registry and register it."""
    from fleet.show import release_text

    sizes: dict[str, int] = {}  # what variants share is told of once for each

    def tell(digest: str, size: int) -> None:
        if verbose and digest not in sizes:
            fleet.remark(f"  {digest} {size:,} bytes")
        sizes[digest] = size

    found = fleet.client.push(folder, version, on_blob=tell, reason=why)
    if sign_key is not None and found["trust"] != "signed":
        sign_pushed(fleet.client, folder, version, sign_key, why)
        found = fleet.client.release(found["model"], found["version"])
    total = f"{len(sizes)} blobs, {sum(sizes.values()):,} bytes"
    fleet.remark(f"{total}, are in the fleet's registry.")
    if found["trust"] == "waits for signatures":
        fleet.remark("No rollout begins with it before it is signed: edgeml trust show")
    fleet.show(found, release_text(found))


@releases_app.command("publish")
def publish(
    folder: Annotated[Path, typer.Argument(help="The folder that edgeml convert wrote.")],
    *,
    registry: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Any OCI registry, with the repository above the models: "
            "https://registry.example/team-a.",
        ),
    ],
    version: Annotated[
        str | None, typer.Option(help="Which release, if the folder holds several.")
    ] = None,
    username: Annotated[
        str, typer.Option(envvar="EDGEML_REGISTRY_USER", help="Where the registry wants one.")
    ] = "",
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its password or token.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Push a release to an external registry, from which devices and other clients can pull it.

    It is tagged with its version, each variant with version and target, so that a client of
    ModelPack or oras finds it. Name the registry as a mirror in a device's configuration to have
    it pulled from there: the fleet says which release, the registry only serves its bytes.

        edgeml releases publish release --registry https://registry.example/team-a
    """
    from cloud_sync.mirrors import split_address
    from cloud_sync.registry_auth import RegistryAuth
    from cloud_sync.release import Layout
    from cloud_sync.transfer import OciClient

    layout = Layout.open(folder)
    release = layout.release(version)
    base, prefix = split_address(registry)
    password = _secret(password_file)
    client = OciClient(base, RegistryAuth(base, username, password), prefix=prefix)
    sizes: dict[str, int] = {}
    try:
        client.push(layout, release, sizes.__setitem__, tagged=True)
    finally:
        client.close()
    place = f"{registry.rstrip('/').partition('://')[2]}/{release.model}"
    found = {
        "release": f"{place}:{release.version}",
        "digest": release.digest,
        "blobs": len(sizes),
        "bytes": sum(sizes.values()),
    }
    text = f"{place}:{release.version} is there: {len(sizes)} blobs, {sum(sizes.values()):,} bytes"
    show(found, f"{text}\n{release.digest}", as_json=as_json)


def _secret(file: Path | None) -> str:
    try:
        return "" if file is None else file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read.", why=f"{error}.") from None


@fleet_command(releases_app, "list")
def list_releases(
    fleet: Session,
    *,
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
) -> None:
    """List the releases, newest first."""
    from fleet.show import releases_text

    found = fleet.client.releases(model)
    models = [m["model"] for m in fleet.client.models()] if model and not found else []
    if models:
        raise UserError(
            f"There is no release of a model {model[:128]!r}.",
            why=f"The fleet has releases of {', '.join(models)}.",
            fix="Name one of these with --model, or push one: edgeml releases push FOLDER",
        )
    fleet.show(found, releases_text(found))


@fleet_command(releases_app, "show")
def show_release(
    fleet: Session,
    name: ReleaseName,
) -> None:
    """Show a release and its variants."""
    from fleet.show import release_text

    found = fleet.client.release(*split_name(name))
    fleet.show(found, release_text(found))


releases_app.command("export")(bundles.export)
releases_app.command("gc")(upkeep.gc)
