"""The systemd unit, read by systemd's own tools."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from edge_agent.api.options import ApiOptions
from edge_agent.commands.install import UNIT, Unit, install, text, unit, warnings
from edgeml.cli import run
from edgeml.errors import UserError
from hardware.probes import probe
from tests import needs
from tests.edge_agent.scene import Scene

TREES = Path(__file__).parents[2] / "hardware/trees"


@pytest.fixture
def found(tmp_path: Path) -> Unit:
    data = tmp_path / "cam 1"
    data.mkdir()
    board = probe(TREES / "kv260", machine="aarch64")
    api = ApiOptions(listen="unix:/run/edgeml-agent/api.sock")
    return unit(data / "agent.toml", data, board, user="root", api=api)


def test_systemd_takes_the_unit_without_a_word(found: Unit, tmp_path: Path) -> None:
    analyze = needs.program("systemd-analyze", "systemd")
    path = tmp_path / UNIT
    path.write_text(text(found))
    done = subprocess.run(
        [analyze, "verify", str(path)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if UNIT in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def test_systemd_calls_the_unit_well_locked_in(found: Unit, tmp_path: Path) -> None:
    analyze = needs.program("systemd-analyze", "systemd")
    (tmp_path / UNIT).write_text(text(found).replace("User=root", "User=daemon"))
    command = [analyze, "security", "--offline=true", "--threshold=30", "--json=short"]
    done = subprocess.run(
        [*command, str(tmp_path / UNIT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout  # an exposure of at most 3.0, "OK" to systemd
    exposed = {
        row["json_field"] for row in json.loads(done.stdout) if float(row["exposure"] or 0) > 0.1
    }
    assert exposed <= {
        "PrivateNetwork",
        "RestrictAddressFamilies_AF_INET_INET6",
        "RestrictAddressFamilies_AF_UNIX",
        "IPAddressDeny",
        "PrivateDevices",
        "DeviceAllow",
        "PrivateUsers",
        "RootDirectoryOrRootImage",
        "MemoryDenyWriteExecute",
        "ProtectClock",
        "ProtectHome",
        "SystemCallFilter_resources",  # priority and cores are set
    }


def test_the_unit_is_watched_and_told_what_this_device_has(found: Unit) -> None:
    lines = text(found).splitlines()
    for line in (
        "Type=notify",
        "WatchdogSec=60",
        "Restart=always",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
        "NoNewPrivileges=yes",
        "DeviceAllow=char-video4linux rw",
        "DeviceAllow=char-usb_device rw",
    ):
        assert line in lines
    [start] = [line for line in lines if line.startswith("ExecStart=")]
    assert "-m edge_agent.service --config" in start
    assert start.endswith("--api unix:/run/edgeml-agent/api.sock")
    assert f'"{found.config}"' in start  # it has a blank


def test_names_are_not_taken_for_systemds_own_words(found: Unit) -> None:
    odd = Unit(config=Path("/a%b/$c.toml"), data=Path("/a%b"), python=Path("/usr/bin/python3"))
    assert "--config /a%%b/$$c.toml" in text(odd)
    assert "ReadWritePaths=/a%%b" in text(odd)


def test_print_changes_nothing(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "install", "--config", str(scene.config), "--print"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# Written by")
    assert f"ReadWritePaths={scene.data}" in said


def test_without_root_it_says_how(found: Unit, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        with pytest.raises(UserError, match="sudo"):
            install(found, tmp_path)
        return
    code = (
        "from pathlib import Path\n"
        "from edge_agent.commands.install import Unit, install\n"
        "from edgeml.errors import UserError\n"
        "p = Path('/tmp/none')\n"
        "try: install(Unit(config=p, data=p, python=p), p)\n"
        "except UserError as error: print(error)"
    )
    import sys

    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "Permission denied" in done.stderr:
        pytest.skip("another user cannot read this interpreter")
    assert "Only root may write" in done.stdout


def test_the_api_is_checked_as_the_agent_checks_it_and_handed_on_whole(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scene.data)
    token, pem = Path("token"), Path("none.pem")
    token.write_text("0123456789abcdef0123")
    token.chmod(0o600)
    pem.write_text("no certificate")
    command = ["agent", "install", "--config", str(scene.config), "--print", "--api"]

    def refused(*arguments: str) -> str:
        assert run([*command, *arguments]) != 0
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    assert "is no address" in refused("rubbish")
    assert "Others can reach it" in refused("0.0.0.0:8093")
    assert "belong together" in refused("127.0.0.1:8093", "--api-key", str(pem))
    both = ["--api-certificate", str(pem), "--api-key", str(pem), "--api-token", str(token)]
    assert "cannot be used" in refused("0.0.0.0:8093", *both)
    token.chmod(0o644)
    assert "Other users can read" in refused("127.0.0.1:8093", "--api-token", str(token))
    token.chmod(0o600)
    assert run([*command, "127.0.0.1:8093", "--api-token", str(token)]) == 0
    said = capsys.readouterr().out
    assert f"--api 127.0.0.1:8093 --api-token {token.resolve()}\n" in said


def test_it_warns_of_what_the_unit_will_not_reach() -> None:
    good = Unit(
        config=Path("/var/lib/edgeml/agent.toml"),
        data=Path("/var/lib/edgeml"),
        python=Path("/opt/edgeml/bin/python"),
        api=ApiOptions(listen="127.0.0.1:8093", token_file="/var/lib/edgeml/token"),
    )
    assert warnings(good) == []
    outside = msgspec.structs.replace(
        good,
        data=Path("/tmp/cam"),
        python=Path("/home/me/.venv/bin/python"),
        api=ApiOptions(listen="127.0.0.1:8093", token_file="/root/token"),
    )
    home, temporary, token = warnings(outside)
    assert "below a home folder" in home
    assert "/tmp/cam lies below a temporary folder" in temporary
    assert "/root/token lies outside of /tmp/cam: edgeml has to be able to read it." in token
