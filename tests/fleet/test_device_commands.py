"""Commands from the operator's keyboard to a device and back, over the real listeners."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloud_sync.commands import Command, CommandResult, CommandStatus
from cloud_sync.messages import RecordKind, decode
from cloud_sync.trust import PayloadType, key_id, open_envelope
from cloud_sync.trust.keys import load_public
from edgeml.cli import app
from edgeml.errors import DeviceError, RemoteError, UserError

Run = Callable[..., str]


@pytest.fixture
def run(fleet: Any, tmp_path: Path) -> Run:
    def make(*arguments: str, code: int = 0) -> str:
        environment = {
            "EDGEML_FLEET": fleet.operators,
            "EDGEML_FLEET_DATA": str(tmp_path / "fleet"),
        }
        done = CliRunner().invoke(app, ["devices", "command", *arguments], env=environment)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.stdout

    return make


def answer(device: Any, **how: Any) -> None:
    """Take the commands that wait for a device, and answer all in the same way."""
    client = device.client()
    client.hello(device.hello())
    assert client.commands_wait
    director = load_public(device.enrolled.director_key)
    for envelope in client.commands():
        payload = open_envelope(envelope, {key_id(director): director}, PayloadType.COMMAND)
        command = decode(payload, Command)
        given = {"status": CommandStatus.DONE, **how}
        result = CommandResult(command=command.id, kind=command.kind, **given)
        device.outbox.append(RecordKind.RESULT, result)
    batch = device.outbox.batch((RecordKind.RESULT,))
    device.outbox.acknowledge(device.open_ack(client.send(batch)))


def test_a_log_s_end_is_printed(run: Run, make_device: Callable[..., Any]) -> None:
    device = make_device("cam-1")
    asked = ("log-tail", "cam-1", "--lines", "2", "--why", "curious", "--wait", "0", "--json")
    made = json.loads(run(*asked))
    answer(device, content="one\ntwo\n", media_type="text/plain")
    [listed] = json.loads(run("list", "cam-1", "--json"))
    assert (listed["id"], listed["kind"], listed["status"]) == (made["id"], "log-tail", "done")
    assert run("show", "cam-1", made["id"]) == "one\ntwo\n"
    device.client().hello(device.hello())
    assert not device.client().commands_wait


def test_a_snapshot_is_written_to_a_file(
    run: Run, make_device: Callable[..., Any], tmp_path: Path
) -> None:
    device = make_device("cam-1")
    made = json.loads(run("snapshot", "cam-1", "--wait", "0", "--json"))
    content = base64.b64encode(b"a picture").decode()
    answer(device, content=content, base64=True, media_type="image/jpeg")
    out = tmp_path / "shot.jpg"
    shown = json.loads(run("show", "cam-1", made["id"], "--out", str(out), "--json"))
    assert (shown["status"], shown["content"]) == ("done", "")
    assert out.read_bytes() == b"a picture"


def test_what_a_device_did_not_do_is_an_error_with_its_reason(
    run: Run, make_device: Callable[..., Any]
) -> None:
    device = make_device("cam-1")
    made = json.loads(run("restart", "cam-1", "--wait", "0", "--json"))
    answer(device, status=CommandStatus.FAILED, reason="No supervisor runs it.")
    with pytest.raises(DeviceError, match="No supervisor"):
        run("show", "cam-1", made["id"])
    said = json.loads(run("show", "cam-1", made["id"], "--json", code=DeviceError.exit_code))
    assert said["status"] == "failed"


def test_a_device_that_is_away_is_not_waited_for_for_ever(
    run: Run, make_device: Callable[..., Any]
) -> None:
    make_device("cam-1")
    with pytest.raises(RemoteError, match=r"has not answered within 0\.1 s"):
        run("diagnostics", "cam-1", "--wait", "0.1")
    made = json.loads(run("diagnostics", "cam-1", "--wait", "0", "--json"))
    assert made["status"] == "pending"


def test_only_what_operators_may_ask_for_goes_over_the_api(
    fleet: Any, make_device: Callable[..., Any]
) -> None:
    make_device("cam-1")
    for kind in ("wipe", "dance"):
        with pytest.raises(UserError, match="not valid"):
            fleet.client.command("cam-1", kind)
