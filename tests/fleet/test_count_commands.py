"""`edgeml devices count`, `devices label`, `models metrics`: command, client, route, service."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeml.cli import app
from edgeml.errors import EdgemlError, UserError
from fleet.services import devices, rollups
from tests.fleet.console.seeds_devices import site

Run = Callable[..., str]


@pytest.fixture
def run(fleet: Any, tmp_path: Path) -> Run:
    site(fleet.services)

    def make(*arguments: str) -> str:
        environment = {
            "EDGEML_FLEET": fleet.operators,
            "EDGEML_FLEET_DATA": str(tmp_path / "fleet"),
        }
        done = CliRunner().invoke(app, arguments, env=environment)
        if isinstance(done.exception, EdgemlError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return make


def labels(fleet: Any, device: str) -> dict[str, str]:
    return devices.show(fleet.services, device)["labels"]


def test_devices_are_labelled_together_and_counted_by_it(run: Run, fleet: Any) -> None:
    said = run("devices", "label", "press-1", "press-2", "--set", "hall=7", "--why", "moved")
    assert said == "2 devices changed.\n"
    assert run("devices", "label", "press-1", "--set", "hall=7").startswith("0 devices changed, 1")
    text = run("devices", "count", "--by", "hall")
    assert re.search(r"^2 devices, \d online", text)
    assert re.search(r"^hall +devices +online\n7 +2 ", text, re.MULTILINE)
    body = json.loads(run("devices", "count", "--by", "hall", "--json"))
    assert [(one["value"], one["devices"]) for one in body["labels"]] == [("7", 2)]
    assert body["devices"] == sum(one["devices"] for one in body["classes"]) == 2

    before = labels(fleet, "press-1")
    run("devices", "label", "--selector", "hall=7", "--drop", "hall", "--set", "trial=yes")
    after = {key: value for key, value in before.items() if key != "hall"} | {"trial": "yes"}
    assert labels(fleet, "press-1") == after
    assert "(none)" in run("devices", "count", "--by", "hall")


def test_a_narrowed_count_is_one_number(run: Run) -> None:
    assert run("devices", "count", "--phase", "rolled_back") == "1 device\n"
    assert json.loads(run("devices", "count", "--name", "press", "--json")) == {"count": 2}
    with pytest.raises(UserError, match="cannot be combined"):
        run("devices", "count", "--name", "press", "--by", "site")
    with pytest.raises(UserError, match="asleep"):
        run("devices", "count", "--state", "asleep")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("press-1",), "No label is named"),
        (("--set", "a=b"), "Which devices"),
        (("press-1", "--selector", "a=b", "--set", "a=b"), "Which devices"),
        (("press-1", "--set", "nothing"), "is no label"),
        (("nobody", "--set", "a=b"), "nobody"),
    ],
)
def test_labels_that_make_no_sense_change_nothing(
    run: Run, arguments: tuple[str, ...], why: str
) -> None:
    with pytest.raises(EdgemlError, match=why):
        run("devices", "label", *arguments)


def test_how_a_model_does_is_printed_in_series(run: Run, fleet: Any) -> None:
    rollups.fold_all(fleet.services)
    asked = ("models", "metrics", "digits", "--hours", "48", "--by", "device")
    body = json.loads(run(*asked, "--json"))
    assert {series["of"]["device"] for series in body["series"]} == {"press-1"}
    [series] = body["series"]
    assert series["total"]["inferred"] == sum(point["inferred"] for point in series["points"]) > 0
    text = run(*asked)
    assert "device press-1" in text
    assert "inference p50" in text
    assert text.splitlines()[-1].split()[:2] == ["all", f"{series['total']['inferred']:,}"]
    assert "Nothing was reported" in run("models", "metrics", "nothing")
    with pytest.raises(UserError, match="colour"):
        run("models", "metrics", "digits", "--by", "colour")
    direct = fleet.client.metrics(model="digits", by=["device"], step_s=21600)
    assert direct["step_s"] == 21600
