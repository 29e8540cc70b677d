"""A wiped device keeps nothing, whatever ended the wipe in between."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import wiping
from edge_agent.service import main
from edgeml.errors import ExitCode
from tests.edge_agent.scene import Scene


def names(data: Path) -> list[str]:
    return sorted(path.name for path in data.iterdir())


def test_keys_go_first_and_nothing_stays_but_the_marker(scene: Scene) -> None:
    (scene.data / "releases").mkdir()
    (scene.data / "releases" / "blob").write_bytes(b"x")
    (scene.data / "outbox.db").write_bytes(b"x")
    (scene.data / "elsewhere").symlink_to(scene.folder)
    wiping.begin(scene.data)
    wiping.wipe(scene.data)
    assert names(scene.data) == [wiping.MARKER]
    assert scene.folder.exists()
    wiping.wipe(scene.data)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_kill_9_in_a_wipe_is_made_good_at_the_next_start(scene: Scene, nth: int) -> None:
    (scene.data / "outbox.db").write_bytes(b"x")
    (scene.data / "releases").mkdir()
    wiping.begin(scene.data)
    command = [sys.executable, "-m", "edge_agent.service", "--config", str(scene.config)]
    killed = {**os.environ, "EDGEML_FAILPOINT": f"wiping:kill:{nth}"}
    assert subprocess.run(command, env=killed, check=False).returncode == -9
    assert len(names(scene.data)) > 1
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == ExitCode.DEVICE
    assert "was decommissioned" in again.stderr
    assert names(scene.data) == [wiping.MARKER]


def test_a_wiped_device_does_not_start(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    wiping.begin(scene.data)
    for _ in range(2):
        assert main(["--config", str(scene.config)]) == ExitCode.DEVICE
        assert "enrol it" in capsys.readouterr().err
