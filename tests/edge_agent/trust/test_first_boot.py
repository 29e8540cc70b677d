"""A first boot without hands: the file is found, used once and removed."""

import logging
from pathlib import Path

import pytest

from edge_agent.trust import first_boot
from edge_agent.trust.identity import load_identity
from edgeml.errors import DeviceError, TrustError, UserError
from tests.sim.fleet import SimFleet


@pytest.fixture
def fleet(tmp_path: Path):  # noqa: ANN201 -- a generator of the simulator
    with SimFleet(tmp_path / "registry") as running:
        yield running


def write(path: Path, url: str, device: str = "cam-1", token: str = "cam-1.token") -> Path:
    path.write_text(
        f'[bootstrap]\nfleet = "{url}"\ndevice = "{device}"\ntoken = "{token}"\n'
        "made_at = 1700000000\nexpires_at = 4000000000\n"
    )
    return path


def test_the_device_enrols_waits_for_a_network_and_removes_the_file(
    fleet: SimFleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, config = write(tmp_path / "b.toml", fleet.url), tmp_path / "device" / "agent.toml"
    slept: list[float] = []
    fleet.stop()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        fleet.start()

    with caplog.at_level(logging.DEBUG):
        first_boot.enroll_from_file(config, file, sleep=sleep)
    assert load_identity(config).config.device == "cam-1"
    assert len(slept) == 1
    assert not file.exists()
    assert "cam-1.token" not in caplog.text


def test_a_refused_token_is_said_and_nothing_is_left_behind(
    fleet: SimFleet, tmp_path: Path
) -> None:
    file = write(tmp_path / "b.toml", fleet.url, token="wrong")
    with pytest.raises(TrustError):
        first_boot.enroll_from_file(tmp_path / "device" / "agent.toml", file)
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize("text", ["", "[bootstrap]\n", "[other]\n", "[[", '[bootstrap]\nx = "1"\n'])
def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(UserError, match=r"b\.toml cannot be used"):
        first_boot.read(tmp_path / "b.toml")


def test_a_board_is_named_by_its_serial_number_or_its_network_card(tmp_path: Path) -> None:
    assert first_boot.name_of("cam-1", tmp_path) == "cam-1"
    with pytest.raises(DeviceError, match="neither a serial number nor a network card"):
        first_boot.name_of("cam-*", tmp_path)
    for name, real in (("docker0", False), ("eth0", True)):
        card = tmp_path / "sys/class/net" / name
        (card / "device").mkdir(parents=True) if real else card.mkdir(parents=True)
        (card / "address").write_text(f"dc:a6:32:01:02:0{int(real)}\n")
    assert first_boot.name_of("cam-*", tmp_path) == "cam-dc-a6-32-01-02-01"
    serial = tmp_path / "sys/firmware/devicetree/base/serial-number"
    serial.parent.mkdir(parents=True)
    serial.write_bytes(b"10000000ABCDEF12\0")
    assert first_boot.name_of("cam-*", tmp_path) == "cam-10000000abcdef12"


def test_the_file_is_found_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(first_boot.VARIABLE, str(tmp_path / "b.toml"))
    data = tmp_path / "data"
    data.mkdir()
    write(data / "bootstrap.toml", "http://127.0.0.1:1")
    assert first_boot.find(data) is None
    write(tmp_path / "b.toml", "http://127.0.0.1:1")
    assert first_boot.find(data) == tmp_path / "b.toml"
    monkeypatch.delenv(first_boot.VARIABLE)
    assert first_boot.find(data) == data / "bootstrap.toml"


def test_the_clock_is_asked_only_where_it_can_be_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = first_boot.read(write(tmp_path / "b.toml", "http://127.0.0.1:1"))
    for now, right in ((1_600_000_000.0, False), (1_800_000_000.0, True), (4_100_000_000.0, False)):
        monkeypatch.setattr(first_boot.time, "time", lambda now=now: now)
        assert (found.clock() is not None) is right


def test_under_the_unit_all_happens_in_the_one_folder_that_can_be_written_to(
    fleet: SimFleet, small_disk: Path
) -> None:
    # A mount cannot be renamed, and its parent is not the agent's: as the unit's ReadWritePaths.
    file = write(small_disk / "bootstrap.toml", fleet.url)
    found = first_boot.find(small_disk)
    assert found == file
    first_boot.enroll_from_file(small_disk / "agent.toml", found)
    assert load_identity(small_disk / "agent.toml").config.device == "cam-1"
    assert not file.exists()
