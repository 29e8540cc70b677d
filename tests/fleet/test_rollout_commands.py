"""The verbs of `edgeml rollout`, through real listeners: command, client, route, service."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeml.cli import app
from edgeml.errors import EdgemlError, UserError
from fleet.rollouts.policy import schema

Run = Callable[..., Any]
CLASS = "x86_64-avx512_vnni-2c"


@pytest.fixture
def run(fleet: Any, tmp_path: Path) -> Run:
    """Run `edgeml rollout ...` with --json; returns what it printed."""

    def make(*arguments: str) -> Any:
        environment = {
            "EDGEML_FLEET": fleet.operators,
            "EDGEML_FLEET_DATA": str(tmp_path / "fleet"),
        }
        done = CliRunner().invoke(app, ["rollout", *arguments, "--json"], env=environment)
        if isinstance(done.exception, EdgemlError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return make


@pytest.fixture
def rollout(fleet: Any, run: Run, release_folder: Path, tmp_path: Path, make_device: Any) -> str:
    """A draft for one device, whose start must be approved."""
    device = make_device("cam-1", site="north")
    device.client().hello(device.hello())
    fleet.client.push(release_folder)
    policy = tmp_path / "policy.toml"
    policy.write_text('approval = "before-start"\n[[waves]]\npercent = 100\n')
    made = run("create", "digits:1.0.0", "--policy", str(policy), "--draft")
    assert (made["status"], made["waits_for"]) == ("draft", "start")
    identity: str = made["id"]
    return identity


def test_a_draft_is_started_approved_and_stopped_by_its_commands(run: Run, rollout: str) -> None:
    assert run("start", rollout)["status"] == "running"
    assert run("explain", rollout)["sentence"]
    assert run("cost", rollout)["bytes"] == 0
    with pytest.raises(EdgemlError, match="needs a reason"):
        run("approve", rollout)
    assert run("approve", rollout, "--why", "nobody else is here")["approvals"][0]["wave"] == 0
    with pytest.raises(EdgemlError, match="no gate"):
        run("override", rollout, "nothing", "--why", "to see")
    with pytest.raises(EdgemlError, match="nothing to try again"):
        run("retry", rollout)
    with pytest.raises(EdgemlError, match="cannot be changed so"):
        run("rollback", rollout)
    assert run("abort", rollout, "--why", "enough")["status"] == "aborted"
    (listed,) = run("list")
    assert (listed["id"], listed["devices"]) == (rollout, [])


def test_a_release_is_blocked_on_a_class_and_let_go_again(run: Run, rollout: str) -> None:
    with pytest.raises(UserError, match="reason is needed"):
        run("block", "digits:1.0.0", CLASS)
    (block,) = run("block", "digits:1.0.0", CLASS, "--why", "it overheats")
    assert (block["reason"], block["hardware_class"]) == ("it overheats", CLASS)
    assert run("blocks") == [block]
    (device,) = run("plan", "digits:1.0.0")["devices"]
    assert device["variant"] is None
    assert f"blocked on {CLASS}: see edgeml rollout blocks" in device["reason"]
    assert run("unblock", "digits:1.0.0", CLASS, "--why", "a new heat sink") == []
    with pytest.raises(UserError, match="is not blocked"):
        run("unblock", "digits:1.0.0", CLASS, "--why", "again")


def test_the_schema_of_the_policy_is_printed_and_served(fleet: Any, http: Any) -> None:
    printed = json.loads(CliRunner().invoke(app, ["rollout", "schema"]).stdout)
    assert printed == schema() == http.get("/api/v1/rollouts/schema").json()
    assert set(printed["$defs"]["Policy"]["properties"]) >= {"waves", "windows", "gates"}


def test_what_changes_a_rollout_prints_a_summary_and_where_its_devices_are(
    fleet: Any, run: Run, rollout: str, make_device: Any
) -> None:
    for number in range(2, 6):
        device = make_device(f"cam-{number}", site="north")
        device.client().hello(device.hello())
    environment = {
        "EDGEML_FLEET": fleet.operators,
        "EDGEML_TOKEN": fleet.services.keys.operator_token,
    }

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["rollout", *arguments], env=environment)
        assert done.exit_code == 0, done.output
        return done.stdout

    for verb in ("start", "pause", "resume", "abort"):
        text = said(verb, rollout)
        assert "cam-" not in text
        assert len(text.splitlines()) <= 7
        assert f"rollout  {rollout}  digits:1.0.0  " in text
        assert "waves    wave 1 of 1 (100 %)" in text
        assert "devices  5 waiting, of 5" in text
        assert f"edgeml rollout status {rollout}  (each device)" in text
    assert all(f"cam-{number}" in said("status", rollout) for number in range(1, 6))
    assert len(run("status", rollout)["devices"]) == 5
