"""The commands `edgeml toolchain list | install | remove | doctor`."""

import json
from typing import Annotated, Any

import msgspec
import typer

app = typer.Typer(
    help="Environments of other tools, each locked and apart from this one.", no_args_is_help=True
)

_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_NAME = Annotated[str, typer.Argument(help="A toolchain's name, as `list` shows it.")]
_MEGABYTE = 1_000_000


@app.command("list")
def show_list(*, as_json: _JSON = False) -> None:
    """Show every toolchain, and which are installed."""
    from converters.toolchains.store import home, listing

    rows = listing()
    if as_json:
        _print({"home": str(home()), "toolchains": msgspec.to_builtins(rows)})
        return
    width = max(len(row.name) for row in rows)
    for row in rows:
        size = f"{row.bytes / _MEGABYTE:,.0f} MB" if row.installed else "-"
        typer.echo(f"{row.name:<{width}}  {size:>9}  {row.description}")


@app.command()
def install(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Toolchains, as `list` shows them.")
    ],
    *,
    as_json: _JSON = False,
) -> None:
    """Install toolchains, one after the other; nothing to do where one is installed."""
    from converters.toolchains.definition import find
    from converters.toolchains.store import install as install_toolchain

    for name in names:
        find(name).require_host()  # of several, all are known to be possible before the first
    made = []
    for name in names:
        found = install_toolchain(name, lambda text: typer.echo(text, err=True))
        made.append({"name": name, "version": found.definition.version, "path": str(found.folder)})
        if not as_json:
            typer.echo(f"The toolchain {name} is installed in {found.folder}")
    if as_json:
        _print({"toolchains": made})


@app.command()
def remove(name: _NAME, *, as_json: _JSON = False) -> None:
    """Remove a toolchain in all its versions."""
    from converters.toolchains.store import remove as remove_toolchain

    removed = remove_toolchain(name)
    if as_json:
        _print({"name": name, "removed": removed})
    else:
        said = "is removed" if removed else "was not installed"
        typer.echo(f"The toolchain {name} {said}")


@app.command()
def doctor(
    name: Annotated[
        str | None, typer.Argument(help="A toolchain; every installed one if left out.")
    ] = None,
    *,
    as_json: _JSON = False,
) -> None:
    """Compare a toolchain with what was installed and execute its self-check.

    Exit code 5 says that something is wrong, or that the toolchain named is not installed.
    """
    from converters.toolchains.doctor import examine
    from converters.toolchains.store import listing
    from edgeml.errors import ExitCode

    names = [name] if name else [row.name for row in listing() if row.installed]
    diagnoses = [examine(each) for each in names]
    if as_json:
        rows = [{**msgspec.to_builtins(d), "healthy": d.healthy} for d in diagnoses]
        _print({"toolchains": rows})
    else:
        for diagnosis in diagnoses:
            if diagnosis.healthy:
                typer.echo(f"{diagnosis.name}: works ({diagnosis.seconds:g} s)")
            elif diagnosis.installed:
                typer.echo(f"{diagnosis.name}: " + "\n  ".join(diagnosis.problems))
            else:
                typer.echo(f"{diagnosis.name}: not installed")
        if not names:
            typer.echo("No toolchain is installed.")
    if not all(diagnosis.healthy for diagnosis in diagnoses):
        raise typer.Exit(ExitCode.TOOLCHAIN_MISSING)


def _print(body: dict[str, Any]) -> None:
    typer.echo(json.dumps(body, indent=2))
