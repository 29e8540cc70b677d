"""The commands against real listeners; `edgeml.cli` composes them in the same way."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from cloud_sync.messages import ReportedSource
from edgeml.cli import app
from edgeml.errors import EdgemlError, ExitCode, UserError

Run = Callable[..., str]
CONFIGURATION = """
telemetry_every_s = 2.0
[[sources]]
name = "belt"
uri = "file:///belt.mp4"
model = "digits"
"""


@pytest.fixture
def run(fleet: Any, tmp_path: Path) -> Run:
    """Run a command against the fleet; returns what it printed."""

    def make(*arguments: str, code: int = 0) -> str:
        environment = {
            "EDGEML_FLEET": fleet.operators,
            "EDGEML_FLEET_DATA": str(tmp_path / "fleet"),
        }
        done = CliRunner().invoke(app, list(arguments), env=environment)
        if isinstance(done.exception, EdgemlError):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.stdout

    return make


def test_a_token_is_printed_alone_so_that_a_script_can_take_it(run: Run) -> None:
    token = run("fleet", "enroll", "cam-1", "--label", "site=north").strip()
    assert len(token) > 40
    made = json.loads(run("fleet", "enroll", "cam-2", "--ttl", "60", "--json"))
    assert (made["device"], made["labels"]) == ("cam-2", {})


def test_releases_are_pushed_listed_and_shown(run: Run, release_folder: Path) -> None:
    assert "There is no release yet" in run("releases", "list")
    pushed = json.loads(run("releases", "push", str(release_folder), "--json"))
    assert "cpu-x86-64-vnni" in run("releases", "push", str(release_folder))
    assert "digits:1.0.0" in run("releases", "list")
    assert "digits:1.0.0" in run("releases", "list", "--model", "digits")
    with pytest.raises(UserError, match=r"no release of a model 'nope'.* releases of digits\."):
        run("releases", "list", "--model", "nope")
    assert json.loads(run("releases", "show", "digits:1.0.0", "--json")) == pushed
    shown = run("releases", "show", "digits:1.0.0")
    assert "onnxruntime  int8" in shown


def test_a_rollout_is_planned_made_paused_resumed_and_aborted(
    run: Run, release_folder: Path, tmp_path: Path, make_device: Any
) -> None:
    device = make_device("cam-1", site="north")
    device.client().hello(device.hello())
    run("releases", "push", str(release_folder))
    policy = tmp_path / "policy.toml"
    policy.write_text("soak_s = 1\n[[waves]]\npercent = 100\n")
    plan = run("rollout", "plan", "digits:1.0.0", "--policy", str(policy))
    assert "fits 1 of 1 devices" in plan
    assert "wave 1 (100 %): cam-1 (online)" in plan
    assert "cpu-x86-64-vnni int8" in plan
    assert "There is no rollout yet" in run("rollout", "list")
    made = json.loads(run("rollout", "create", "digits:1.0.0", "--policy", str(policy), "--json"))
    rollout = made["id"]
    assert "running" in run("rollout", "status", rollout)
    assert "paused" in run("rollout", "pause", rollout, "--why", "lunch")
    assert "running" in run("rollout", "resume", rollout)
    assert "aborted" in run("rollout", "abort", rollout, "--why", "enough")
    assert "enough" in run("rollout", "explain", rollout)
    assert rollout in run("rollout", "list")
    assert "aborted" in run("rollout", "watch", rollout, code=3)
    selected = json.loads(
        run("rollout", "plan", "digits:1.0.0", "--selector", "site=south", "--json")
    )
    assert (selected["devices"], selected["waves"]) == ([], [[], [], [], []])


def test_a_rollout_for_nobody_is_refused_and_names_the_nearest_labels(
    run: Run, release_folder: Path, make_device: Any
) -> None:
    run("releases", "push", str(release_folder))
    with pytest.raises(UserError, match="There is no device yet"):
        run("rollout", "create", "digits:1.0.0")
    make_device("cam-1", site="south")
    wrong = ("digits:1.0.0", "--selector", "site=sotuh")
    with pytest.raises(UserError, match="does not match") as error:
        run("rollout", "create", *wrong)
    assert "Nearest labels: site=south (1 device)." in error.value.fix
    assert "Nearest labels: site=south (1 device)." in run("rollout", "plan", *wrong)
    assert "running" in run("rollout", "create", *wrong, "--allow-empty")


def test_a_rollout_that_shares_devices_with_another_says_so(
    run: Run, release_folder: Path, make_device: Any
) -> None:
    device = make_device("cam-1", site="north")
    device.client().hello(device.hello())
    run("releases", "push", str(release_folder))
    first = json.loads(run("rollout", "create", "digits:1.0.0", "--json"))["id"]
    plan = run("rollout", "plan", "digits:1.0.0")
    assert f"note: {first} is running and chooses 1 device of these, too." in plan
    assert f"edgeml rollout abort {first}" in plan


def test_a_push_says_in_one_line_what_is_there(
    release_folder: Path, fleet: Any, tmp_path: Path
) -> None:
    environment = {"EDGEML_FLEET": fleet.operators, "EDGEML_FLEET_DATA": str(tmp_path / "fleet")}
    push = ["releases", "push", str(release_folder)]
    short = CliRunner().invoke(app, push, env=environment).stderr.splitlines()
    assert len(short) == 1
    assert re.fullmatch(r"\d+ blobs, [\d,]+ bytes, are in the fleet's registry\.", short[0])
    long = CliRunner().invoke(app, [*push, "--verbose"], env=environment).stderr.splitlines()
    assert len(long) == 1 + int(short[0].split()[0])


def test_a_configuration_that_the_device_refused_is_shown_so(
    run: Run, make_device: Any, tmp_path: Path
) -> None:
    device = make_device("cam-1")
    device.client().hello(device.hello())
    assert "no configuration yet" in run("devices", "show", "cam-1")
    file = tmp_path / "cam-1.toml"
    file.write_text(CONFIGURATION)
    shown = run("devices", "configure", "cam-1", str(file))
    assert "configuration 1; the device last said that it runs 0" in shown
    device.take(device.client().hello(device.hello()))
    said = device.hello()
    refused = msgspec.structs.replace(said.reported, config_error="no such model")
    device.client().hello(msgspec.structs.replace(said, reported=refused))
    assert "configuration 1 REFUSED, runs 0: no such model" in run("devices", "show", "cam-1")


def test_a_source_that_is_lost_is_shown_with_its_reason(
    run: Run, make_device: Any, tmp_path: Path
) -> None:
    device = make_device("cam-1")
    file = tmp_path / "cam-1.toml"
    file.write_text(CONFIGURATION)
    run("devices", "configure", "cam-1", str(file))
    said = device.hello()
    gone = ReportedSource(model="toy", state="lost", reason="cannot be opened", seconds=150.0)
    told = msgspec.structs.replace(said.reported, sources={"belt": gone})
    device.client().hello(msgspec.structs.replace(said, reported=told))
    shown = run("devices", "show", "cam-1")
    assert re.search(r"source +model +state +for +why\n", shown)
    assert re.search(r"belt +toy +lost +2 min +cannot be opened", shown)
    reported = json.loads(run("devices", "show", "cam-1", "--json"))["reported"]
    assert reported["sources"]["belt"]["reason"] == "cannot be opened"


def test_devices_are_listed_shown_and_configured(
    run: Run, make_device: Any, tmp_path: Path
) -> None:
    assert "There is no device yet" in run("devices", "list")
    device = make_device("cam-1", site="north")
    device.client().hello(device.hello())
    file = tmp_path / "cam-1.toml"
    file.write_text(CONFIGURATION)
    assert "sources: belt" in run("devices", "configure", "cam-1", str(file), "--why", "new belt")
    assert "x86_64-avx512_vnni-2c" in run("devices", "list", "--selector", "site=north")
    shown = json.loads(run("devices", "show", "cam-1", "--json"))
    assert shown["configuration"]["sources"][0]["uri"] == "file:///belt.mp4"
    assert shown["desired"]["config_version"] == 1


def test_health_and_a_login_link_are_printed(run: Run) -> None:
    assert "broker" in run("fleet", "health")
    assert run("fleet", "security").strip() == "Nothing was refused."
    assert "?token=" in run("fleet", "console")
    assert run("fleet", "thaw", "--why", "checked") == (
        "Rollouts were not frozen: they move as before.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["releases", "show", "digits"], "names no release"),
        (["releases", "push", "/nowhere"], "no release folder"),
        (["devices", "show", "cam-9"], "no device 'cam-9'"),
        (["devices", "configure", "cam-9", "/nowhere"], "cannot be read"),
        (["rollout", "create", "digits:1", "--policy", "/nowhere"], "cannot be read"),
        (["rollout", "create", "digits:1"], "no release digits:1"),
        (["fleet", "enroll", "a/b"], "cannot be a device's id"),
        (["fleet", "enroll", "cam-1", "--label", "site"], "is no label"),
    ],
)
def test_what_is_wrong_is_one_sentence(run: Run, arguments: list[str], what: str) -> None:
    with pytest.raises(EdgemlError) as error:
        run(*arguments)
    assert what in error.value.what


def test_a_token_that_is_not_there_is_one_sentence(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="token was not found"):
        run("devices", "list", "--data", str(tmp_path / "elsewhere"))


def test_a_watch_ends_with_ctrl_c(
    run: Run, fleet: Any, tmp_path: Path, release_folder: Path
) -> None:
    run("releases", "push", str(release_folder))
    made = run("rollout", "create", "digits:1.0.0", "--allow-empty", "--json")
    rollout = json.loads(made)["id"]
    with subprocess.Popen(
        [sys.executable, "-m", "edgeml.cli", "rollout", "watch", rollout],
        env={
            **os.environ,
            "EDGEML_FLEET": fleet.operators,
            "EDGEML_FLEET_DATA": str(tmp_path / "fleet"),
        },
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        try:
            assert watch.stdout is not None
            assert watch.stdout.readline()
            watch.send_signal(signal.SIGINT)
            assert watch.wait(60) == ExitCode.INTERRUPTED
        finally:
            watch.kill()
