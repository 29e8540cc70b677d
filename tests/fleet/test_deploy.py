"""The compose file and the units: whole, and with options that the commands take."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from edgeml.cli import app
from tests.needs import module, program

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = DEPLOY / "systemd"
ROLES = ("api", "controller", "ingest")


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options of an `edgeml fleet` command line, as the command would get them."""
    command: Any = get_command(app)
    for word in ("fleet", arguments[0]):
        command = command.get_command(None, word)
    found: dict[str, Any] = command.make_context(arguments[0], arguments[1:]).params
    return found


def test_the_compose_file_is_one_by_the_specification() -> None:
    options = module("compose_spec").PyOptions(apply_merge=True)
    compose = options.from_yaml((DEPLOY / "compose.yaml").read_text())
    compose.validate()
    assert {"postgres", "mosquitto", "registry", *ROLES} <= set(compose.service_names())


@pytest.mark.parametrize("role", ROLES)
def test_the_compose_file_starts_two_of_each_role(role: str) -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][role]
    options = parsed(service["command"])
    assert [str(one) for one in options["role"]] == [role]
    assert service["deploy"]["replicas"] == 2
    mounted = {volume.split(":")[1] for volume in service["volumes"]}
    assert {"/data", "/broker"} <= mounted
    secrets = {f"/run/secrets/{name}" for name in service["secrets"]}
    files = {str(options[name]) for name in ("database_file", "tls_cert", "tls_key")} - {"None"}
    assert files <= secrets


@pytest.mark.parametrize("role", ROLES)
def test_the_units_start_what_there_is(role: str) -> None:
    environment = dict(
        line.split("=", 1)
        for line in (UNITS / "edgeml-fleet.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    lines = (UNITS / f"edgeml-{role}@.service").read_text().splitlines()
    [start] = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")]
    for name, value in environment.items():
        start = start.replace(f"${name}", value.strip('"'))
    words = shlex.split(start.replace("%i", "1"))
    assert words[1] == "fleet"
    options = parsed(words[2:])
    assert [str(one) for one in options["role"]] == [role]
    assert (options["port"], options["device_port"]) == (
        (8441, 8451) if role == "api" else (8080, 8081)
    )


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    verify = program("systemd-analyze", "systemd")
    stand_in = shutil.which("true")
    for unit in UNITS.iterdir():
        # It looks whether what a unit starts is there.
        text = unit.read_text().replace("/opt/edgeml/bin/edgeml", str(stand_in))
        (tmp_path / unit.name.replace("@.", "@1.")).write_text(text)
    units = [str(path) for path in sorted(tmp_path.iterdir()) if path.suffix != ".env"]
    done = subprocess.run(
        [verify, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if "edgeml" in line]
    assert (done.returncode, said) == (0, [])
