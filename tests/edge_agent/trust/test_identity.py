"""Enrolment: an identity appears whole or not at all; `edgeml agent` says what went wrong."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud_sync.trust import key_id, load_key
from cloud_sync.trust.identity import verify_issued
from cloud_sync.update_machine import ModelState
from edge_agent.cli import app
from edge_agent.trust.identity import enroll_device, load_config, load_identity
from edge_agent.update.journal import DeviceState, Journal
from edgeml.errors import RemoteError, TrustError, UserError
from tests.edge_agent.disk import fill
from tests.sim.fleet import SimFleet


@pytest.fixture
def fleet(tmp_path: Path):  # noqa: ANN201 -- a generator of the simulator
    with SimFleet(tmp_path / "registry") as running:
        yield running


def test_an_enrolled_device_holds_its_key_its_certificate_and_the_directors_key(
    fleet: SimFleet, tmp_path: Path
) -> None:
    identity = load_identity(fleet.enroll("cam-1", tmp_path / "cam-1"))
    assert identity.config.device == "cam-1"
    assert identity.config.fleet_url == fleet.url
    ca, certificate, key = identity.tls_files
    assert verify_issued(certificate.read_text(), ca.read_text()) == "cam-1"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(identity.director_keys) == 1


def test_a_device_keeps_the_root_that_it_is_enrolled_with(fleet: SimFleet, tmp_path: Path) -> None:
    assert load_identity(fleet.enroll("cam-1", tmp_path / "cam-1")).root is None
    fleet.root = '{"signed": {}}'
    identity = load_identity(fleet.enroll("cam-2", tmp_path / "cam-2"))
    assert identity.root == fleet.root.encode()
    # Emptied by a disk it is no root any more, and not the absence of one.
    (identity.data / "identity" / "root.json").write_bytes(b"")
    assert load_identity(identity.data / "agent.toml").root == b""


def test_a_folder_that_is_in_use_is_not_touched(fleet: SimFleet, tmp_path: Path) -> None:
    config = fleet.enroll("cam-1", tmp_path / "cam-1")
    before = config.read_bytes()
    with pytest.raises(UserError, match="already"):
        fleet.enroll("cam-1", tmp_path / "cam-1")
    assert config.read_bytes() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="not empty"):
        fleet.enroll("cam-2", tmp_path / "full")


def test_a_refused_token_leaves_nothing_behind(fleet: SimFleet, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="refused"):
        enroll_device(fleet.url, "cam-1", "wrong.token", tmp_path / "new" / "cam-1")
    assert not (tmp_path / "new").exists()


def spent(fleet: SimFleet) -> bool:
    return bool(fleet.devices)


@pytest.mark.parametrize("place", ["file/cam-1", "/proc/nowhere/cam-1", "file"])
def test_a_folder_that_cannot_be_made_costs_no_token(
    fleet: SimFleet, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="the token is not spent"):
        enroll_device(fleet.url, "cam-1", "cam-1.token", tmp_path / place)
    assert not spent(fleet)


def test_a_full_disk_costs_no_token(fleet: SimFleet, small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(UserError, match="No space left"):
        enroll_device(fleet.url, "cam-1", "cam-1.token", small_disk / "cam-1")
    assert not spent(fleet)
    assert not (small_disk / "cam-1").exists()


def test_an_empty_folder_is_taken_and_stays_when_the_token_is_refused(
    fleet: SimFleet, tmp_path: Path
) -> None:
    data = tmp_path / "cam-1"
    data.mkdir()
    with pytest.raises(TrustError, match="refused"):
        enroll_device(fleet.url, "cam-1", "wrong", data)
    assert list(data.iterdir()) == []
    assert enroll_device(fleet.url, "cam-1", "cam-1.token", data).exists()


def test_a_folder_that_is_mounted_is_used_as_it_is(fleet: SimFleet, small_disk: Path) -> None:
    # As under the systemd unit, where the data folder is the one writable place.
    (small_disk / "lost+found").mkdir(exist_ok=True)
    config = enroll_device(fleet.url, "cam-1", "cam-1.token", small_disk)
    assert load_identity(config).config.device == "cam-1"
    assert small_disk.stat().st_mode & 0o777 == 0o700
    names = {path.name for path in small_disk.iterdir()}
    assert names == {"agent.toml", "identity", "lost+found"}


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(
    fleet: SimFleet, tmp_path: Path
) -> None:
    fleet.stop()
    with pytest.raises(RemoteError):
        enroll_device(fleet.url, "cam-1", "cam-1.token", tmp_path / "cam-1")
    [key] = (tmp_path / "cam-1" / ".enrolling").iterdir()
    asked = load_key(key)
    assert key.stat().st_mode & 0o777 == 0o600
    fleet.start()
    config = enroll_device(fleet.url, "cam-1", "cam-1.token", tmp_path / "cam-1")
    assert key_id(load_identity(config).key.public_key()) == key_id(asked.public_key())


def test_an_enrolment_that_a_crash_cut_short_is_finished_without_a_token(
    fleet: SimFleet, tmp_path: Path
) -> None:
    config = fleet.enroll("cam-1", tmp_path / "cam-1")
    config.replace(tmp_path / "cam-1" / "identity" / "agent.toml")
    with pytest.raises(UserError, match="already"):
        enroll_device(fleet.url, "cam-2", "spent", tmp_path / "cam-1")
    assert enroll_device(fleet.url, "cam-1", "spent", tmp_path / "cam-1") == config
    assert load_identity(config).config.device == "cam-1"


def test_a_name_that_no_device_can_have_is_a_sentence(fleet: SimFleet, tmp_path: Path) -> None:
    for name in ("", "a/b", "x" * 65):
        with pytest.raises(UserError, match="cannot be a device's id"):
            enroll_device(fleet.url, name, "t", tmp_path / "cam-1")


def test_a_fleet_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="cannot be reached"):
        enroll_device("http://127.0.0.1:9", "cam-1", "t", tmp_path / "cam-1")


@pytest.mark.parametrize(
    "text", ["", "[agent", "[agent]\ndevice = 3", "[agent]\ndevice='a'\nextra=1", "\x00"]
)
def test_a_wrong_agent_toml_is_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot be used"):
        load_config(path)


def test_a_missing_agent_toml_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="edgeml agent enroll"):
        load_config(tmp_path / "agent.toml")


def test_a_key_that_others_may_read_is_refused(fleet: SimFleet, tmp_path: Path) -> None:
    config = fleet.enroll("cam-1", tmp_path / "cam-1")
    (tmp_path / "cam-1" / "identity" / "device.key").chmod(0o644)
    with pytest.raises(TrustError, match="read by others"):
        load_identity(config)


def test_the_command_line_enrols_and_tells_the_state(fleet: SimFleet, tmp_path: Path) -> None:
    runner = CliRunner()
    data = tmp_path / "cam-1"
    arguments = [
        "--device",
        "cam-1",
        "--fleet",
        fleet.url,
        "--token",
        "cam-1.token",
        "--data",
        str(data),
    ]
    done = runner.invoke(app, ["enroll", *arguments, "--json"])
    assert done.exit_code == 0
    config = json.loads(done.stdout)["config"]
    said = runner.invoke(app, ["status", "--config", config])
    assert "no model yet" in said.stdout
    state = DeviceState(epoch=1, counter=4, models={"toy": ModelState()}, config_error="no camera")
    Journal(data / "state.json").write(state)
    said = runner.invoke(app, ["status", "--config", config])
    assert "toy: runs nothing, idle" in said.stdout
    assert "no camera" in said.stdout
    found = json.loads(runner.invoke(app, ["status", "--config", config, "--json"]).stdout)
    assert found["desired_counter"] == 4
