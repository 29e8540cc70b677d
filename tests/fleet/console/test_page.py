"""The console in a real browser, against a real fleet."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.loop import Loop

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=8000",
)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    if CHROMIUM is None:
        assert os.environ.get("CI") != "true", "Chromium is missing: apt-get install chromium"
        pytest.skip("Chromium is not installed: apt-get install chromium")
    made = Loop(tmp_path)
    made.start_fleet()
    yield made
    made.close()


def browse(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        # Every other host resolves to nowhere, so that a request to one shows as an error.
        [
            CHROMIUM,
            *FLAGS,
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder}",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_overview_shows_devices_and_what_happened_and_asks_no_other_host(
    loop: Loop, tmp_path: Path
) -> None:
    loop.enroll("cam-1")
    page = browse(loop.client.login_link()["url"], tmp_path / "browser")
    assert "0 of 1 devices are online" in page.stdout
    assert "cam-1" in page.stdout
    assert "device.configure cam-1" in page.stdout
    assert "edgeml rollout create" in page.stdout, "an empty state teaches the command"
    console = [line for line in page.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in console if "error" in line.lower()], console
    assert "ERR_NAME_NOT_RESOLVED" not in page.stderr


def test_a_stranger_sees_how_to_log_in_and_nothing_else(loop: Loop, tmp_path: Path) -> None:
    loop.enroll("cam-1")
    page = browse(f"http://127.0.0.1:{loop.ports[0]}/", tmp_path / "browser")
    assert "not logged in" in page.stdout
    assert "cam-1" not in page.stdout
