"""The commands that let devices in and out, over a real fleet's REST API."""

import csv
import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cloud_sync.device_api import DeviceClient, enroll
from cloud_sync.messages import EnrollRequest
from cloud_sync.trust import generate
from cloud_sync.trust.identity import make_request
from edge_agent.trust.first_boot import read
from edgeml.errors import TrustError, UserError
from fleet.bootstrap import read_devices
from fleet.commands.devices import devices_app
from fleet.commands.fleet import fleet_app


def run(fleet: Any, app: Any, *arguments: str) -> str:
    where = ("--fleet", fleet.operators, "--token", fleet.services.keys.operator_token)
    done = CliRunner().invoke(app, [*arguments, *where], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def come(fleet: Any, device: str, token: str) -> Any:
    return enroll(fleet.devices, EnrollRequest(token=token, csr=make_request(device, generate())))


def test_tokens_are_made_for_a_list_and_let_their_devices_in(fleet: Any, tmp_path: Path) -> None:
    listed, out = tmp_path / "ids.csv", tmp_path / "tokens.csv"
    listed.write_text("device,site\ncam-1,north\ncam-2,\n")
    folder, url = tmp_path / "boot", "https://fleet.example:8081"
    run(
        fleet,
        devices_app,
        *("tokens", "--csv", str(listed), "--out", str(out)),
        *("--bootstrap", str(folder), "--devices-url", url),
    )
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["device"] for row in rows] == ["cam-1", "cam-2"]
    for row in rows:
        file = folder / f"{row['device']}.toml"
        assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(out.stat().st_mode) == 0o600
        assert (read(file).token, read(file).fleet) == (row["token"], url)
        come(fleet, row["device"], row["token"])
    assert fleet.client.device("cam-1")["labels"] == {"site": "north"}
    with pytest.raises(TrustError, match="used before"):
        come(fleet, "cam-1", rows[0]["token"])


def test_one_wrong_id_in_a_list_and_no_token_is_made(fleet: Any) -> None:
    with pytest.raises(UserError, match="cannot be a device's id"):
        fleet.client.enroll_many({"cam-1": {}, "not an id": {}}, 60.0)
    assert not [e for e in fleet.client.audit() if e["action"] == "enrollment.create"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no column named device"),
        ("site\nnorth\n", "no column named device"),
        ("device\n", "is empty"),
        ("device\ncam-1\ncam-1\n", "has cam-1 again"),
        ("device\ncam-1,extra\n", "too many columns"),
    ],
)
def test_a_list_that_is_wrong_is_refused_by_the_line(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        read_devices(text)


def test_a_bootstrap_file_serves_a_disk_image(fleet: Any, tmp_path: Path) -> None:
    file = tmp_path / "edgeml.toml"
    run(
        fleet,
        devices_app,
        *("bootstrap", str(file), "--device", "cam-*", "--uses", "2", "--label", "batch=7"),
        *("--devices-url", "https://fleet.example:8081"),
    )
    table = tomllib.loads(file.read_text())["bootstrap"]
    assert table["device"] == "cam-*"
    come(fleet, "cam-7", table["token"])
    assert fleet.client.device("cam-7")["labels"] == {"batch": "7"}


def test_a_revoked_device_is_refused_at_once(fleet: Any, make_device: Any) -> None:
    device = make_device()
    client = DeviceClient(fleet.devices, "cam-1", device.key)
    client.desired()
    said = json.loads(run(fleet, devices_app, "revoke", "cam-1", "--why", "stolen", "--json"))
    assert said["revoked_at"]
    with pytest.raises(TrustError, match="not enrolled"):
        client.desired()
    client.close()
    [entry] = [e for e in fleet.client.audit() if e["action"] == "device.revoke"]
    assert entry["reason"] == "stolen"


def test_the_proven_time_is_reset_with_a_reason(fleet: Any) -> None:
    said = json.loads(run(fleet, fleet_app, "reset-time", "--why", "2040", "--json"))
    assert said["reset"]
    assert fleet.client.audit()[0]["action"] == "fleet.reset-time"
