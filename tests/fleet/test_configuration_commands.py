"""`edgeml devices configuration`, `fleet prices`, `fleet backup`: against real listeners."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeml.cli import app
from edgeml.errors import EdgemlError, UserError
from fleet.controller import Controller

Run = Callable[..., str]
PRICES = 'currency = "CHF"\n[[prices]]\nselector = "site=north"\nper_mb = 0.5\n'


@pytest.fixture
def run(fleet: Any, tmp_path: Path) -> Run:
    def make(*arguments: str) -> str:
        environment = {"EDGEML_FLEET": fleet.operators, "EDGEML_FLEET_DATA": f"{tmp_path}/fleet"}
        done = CliRunner().invoke(app, [*arguments], env=environment)
        if isinstance(done.exception, EdgemlError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def make(text: str) -> str:
        path = tmp_path / "file.toml"
        path.write_text(text)
        return str(path)

    return make


def test_a_layer_is_planned_rolled_out_shown_and_undone(
    run: Run, write: Callable[[str], str], make_device: Callable[..., Any], fleet: Any
) -> None:
    make_device("cam-1", site="north")
    configuration = ("devices", "configuration")
    assert "There is no layer yet" in run(*configuration, "layers")
    file = write("telemetry_every_s = 5.0\n")
    layer = ("--layer", "north", "--selector", "site=north", "--priority", "2")
    planned = run(*configuration, "plan", file, *layer)
    assert "north@1 changes 1 device," in planned
    assert "telemetry_every_s - -> 5.0" in planned
    begun = json.loads(run(*configuration, "rollout", file, *layer, "--json"))
    assert (begun["layer"], begun["number"], begun["changed"]) == ("north", 1, 1)
    Controller(fleet.services).tick()
    shown = run(*configuration, "show", "cam-1", "--origin")
    assert "telemetry_every_s" in shown
    assert "north@1" in shown
    assert "version 1 is pending" in shown
    status = run("rollout", "status", begun["rollout"])
    assert "configuration" in status
    run("rollout", "abort", begun["rollout"], "--why", "a test")
    Controller(fleet.services).tick()
    assert "north@1" not in run(*configuration, "show", "cam-1", "--origin")
    assert "site=north" in run(*configuration, "layers")
    assert begun["rollout"] in run(*configuration, "layer", "north")
    again = json.loads(run(*configuration, "undo", "north", "1", "--json"))
    assert (again["number"], again["changed"]) == (2, 1)
    with pytest.raises(UserError, match="no revision 9"):
        run(*configuration, "undo", "north", "9")


def test_a_devices_own_layer_is_set_and_cleared_and_a_budget_leaves_the_rest_to_the_fleet(
    run: Run, write: Callable[[str], str], make_device: Callable[..., Any]
) -> None:
    run("devices", "configuration", "rollout", write("telemetry_every_s = 60.0"))
    make_device()
    run("devices", "budget", "cam-1", "--month", "50MB")
    found = json.loads(run("devices", "configuration", "show", "cam-1", "--json"))
    origins = {s["key"]: s["origin"] for s in found["settings"] if s["origin"] != "default"}
    assert origins == {
        "data_budget.month_bytes": "device:cam-1@1",
        "telemetry_every_s": "fleet@1",
    }
    said = run("devices", "configuration", "set", "cam-1", write("telemetry_every_s = 1.0"))
    assert "device:cam-1@2" in said
    assert "fleet@1" in run("devices", "configuration", "clear", "cam-1")


def test_a_change_that_somebody_else_was_quicker_with_is_refused(
    fleet: Any, make_device: Callable[..., Any]
) -> None:
    make_device()
    http, path = fleet.client, "/devices/cam-1/configuration"
    read = http._answer("GET", path)
    http.configure("cam-1", {"telemetry_every_s": 5.0})
    with pytest.raises(EdgemlError, match="not any more what you have read"):
        http._put(path, {"telemetry_every_s": 6.0}, "", read.headers["etag"])
    read = http._answer("GET", path)
    assert read.json() == {"telemetry_every_s": 5.0}
    http._put(path, {"telemetry_every_s": 6.0}, "", read.headers["etag"])
    assert http.settings("cam-1") == {"telemetry_every_s": 6.0}


def test_prices_are_set_and_shown(run: Run, write: Callable[[str], str]) -> None:
    assert "No prices are set" in run("fleet", "prices", "show")
    assert "0.5 CHF" in run("fleet", "prices", "set", write(PRICES), "--why", "a contract")
    found = json.loads(run("fleet", "prices", "show", "--json"))
    assert found == {"currency": "CHF", "prices": [{"selector": "site=north", "per_mb": 0.5}]}
    with pytest.raises(UserError, match="cannot be used"):
        run("fleet", "prices", "set", write("[[prices]]\nper_mb = -1"))


def test_a_backup_says_what_it_is(run: Run, fleet: Any, tmp_path: Path) -> None:
    file = tmp_path / "b" / "fleet.backup"
    url = ("--database", fleet.services.database.url)
    assert "without the keys" in run("fleet", "backup", "--to", str(file), *url)
    made = json.loads(run("fleet", "backup", "--to", str(file), "--with-keys", *url, "--json"))
    assert (made["file"], made["with_keys"]) == (str(file), True)
    with pytest.raises(UserError, match="There is a database"):
        run("fleet", "restore", str(file), *url)
