"""The `edgeml` command: composes the packages' own commands and turns errors into sentences.

Each package's `cli.py` says what its commands do; here they are only put under one roof. An
`EdgemlError` is printed as what, why and what to do next, and decides the exit code; with
`--json` it is printed as one JSON object instead.
"""

import json
import sys
from typing import Annotated, Any

import typer

import converters.cli
import converters.toolchains.cli
import edge_agent.cli
import edgeml.demo.cli
import fleet.cli
from edgeml import __version__
from edgeml.errors import EdgemlError, ExitCode, ToolchainError, exit_code_of
from edgeml.plain import plain

_EXTRA_OF = {
    "cryptography": "agent",
    "httpx": "agent",
    "numpy": "agent",
    "onnxruntime": "agent",
    "cv2": "agent",
    "paho": "agent",
    "onnx": "convert",
    "jinja2": "convert",
    "matplotlib": "convert",
    "pycocotools": "convert",
    "scipy": "convert",
    "aiohttp": "fleet",
    "alembic": "fleet",
    "argon2": "fleet",
    "authlib": "fleet",
    "fastapi": "fleet",
    "mqtt5": "fleet",
    "joserfc": "fleet",
    "nicegui": "fleet",
    "sqlalchemy": "fleet",
    "prometheus_client": "fleet",
    "rich": "convert",
    "tenacity": "fleet",
    "uvicorn": "fleet",
    "uvloop": "fleet",
    "securesystemslib": "trust",
    "tuf": "trust",
    "mlxtend": "examples",
}

app = typer.Typer(
    name="edgeml",
    help="From a trained ONNX model to a fleet of edge devices that provably run it well.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("convert")(converters.cli.convert)
app.command("inspect")(converters.cli.inspect)
app.command("targets")(converters.cli.targets)
app.command("demo")(edgeml.demo.cli.demo)
app.command("simulate")(fleet.cli.simulate)
app.add_typer(edge_agent.cli.app, name="agent")
app.add_typer(fleet.cli.fleet_app, name="fleet")
app.add_typer(fleet.cli.releases_app, name="releases")
app.add_typer(fleet.cli.rollout_app, name="rollout")
app.add_typer(fleet.cli.devices_app, name="devices")
app.add_typer(fleet.cli.models_app, name="models")
app.add_typer(fleet.cli.samples_app, name="samples")
app.add_typer(fleet.cli.alerts_app, name="alerts")
app.add_typer(fleet.cli.webhooks_app, name="webhooks")
app.command("top")(fleet.cli.top)
app.add_typer(fleet.cli.trust_app, name="trust")
app.add_typer(fleet.cli.users_app, name="users")
app.add_typer(fleet.cli.tokens_app, name="tokens")
app.add_typer(fleet.cli.audit_app, name="audit")
app.command("login")(fleet.cli.login)
app.command("logout")(fleet.cli.logout)
app.command("whoami")(fleet.cli.whoami)
app.add_typer(converters.toolchains.cli.app, name="toolchain")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeml {__version__}")
        raise typer.Exit


@app.callback()
def _edgeml(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Put the options that stand before any command in one place."""


def main() -> None:
    """Run the command line; the entry point of the console script `edgeml`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors are printed, never raised.

    Typer itself prints usage errors (exit code 2) and turns Ctrl-C into 130.
    """
    as_json = "--json" in arguments
    try:
        app(args=arguments, prog_name="edgeml")
    except EdgemlError as error:
        return _report(error, as_json=as_json)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _report(_missing_extra(str(error.name), extra), as_json=as_json)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.DONE
    return ExitCode.DONE


def _missing_extra(module: str, extra: str) -> ToolchainError:
    return ToolchainError(
        "A part of edgeml that this command needs is not installed.",
        why=f"The Python module {module} is missing.",
        fix=f"Run: pip install 'edgeml[{extra}]'",
    )


def _report(error: EdgemlError, *, as_json: bool) -> int:
    code = exit_code_of(error)
    if as_json:
        body: dict[str, Any] = {
            "error": {
                "kind": type(error).__name__,
                "exit_code": int(code),
                "what": error.what,
                "why": error.why,
                "fix": error.fix,
            }
        }
        print(json.dumps(body))  # noqa: T201
    else:
        lines = [f"error: {error.what}"]
        lines += [f"  why: {error.why}"] if error.why else []
        lines += [f"  fix: {error.fix}"] if error.fix else []
        print(plain("\n".join(lines)), file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    main()
