"""The agent on a 64-bit Arm board, emulated: enrolled, updated, swapped under load, reporting."""

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.arm64 import python_in
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the first time it downloads the board
    pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates from x86-64"),
]
DEVICE = "board-1"
# QEMU's user mode does not tell what a connection cost, as kernels before 4.19 do not.
BUDGETED = """
import sys
from pathlib import Path
from edge_agent.budget import BudgetSpent
from edge_agent.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.require(1, "r1", 0)
try:
    ledger.require(1, "r1", 100_000_000)
except BudgetSpent as error:
    print(error.what)
"""


@pytest.fixture
def loop(kept_toolchains: Path, tmp_path: Path) -> Iterator[Loop]:
    made = Loop(tmp_path, agent_python=str(python_in(tmp_path, kept_toolchains)))
    try:
        made.start_fleet()
        yield made
    finally:
        made.close()


def roll_out(loop: Loop, version: str, seed: int) -> None:
    layout, _ = make_release(loop.folder / version, version, seed=seed, architecture="arm64")
    loop.client.push(layout.folder)
    ended = loop.finished(loop.roll_out(version), deadline_s=300)
    assert ended["status"] == "completed", (ended["sentence"], loop.log(DEVICE))


def test_an_emulated_arm64_board_enrols_updates_swaps_and_reports(loop: Loop) -> None:
    loop.enroll(DEVICE)
    # One thread: each way to run that is raced is a process that takes seconds to start here.
    with (loop.folder / DEVICE / "agent.toml").open("a") as config:
        config.write("threads = 1\n")
    loop.start_agent(DEVICE)
    roll_out(loop, "1.0.0", seed=0)
    roll_out(loop, "1.0.1", seed=1)

    def device() -> Any:
        return loop.client.device(DEVICE)

    until("the word", lambda: device()["reported"]["models"]["toy"]["running_version"] == "1.0.1")
    assert device()["capabilities"]["architecture"] == "arm64"
    until(
        "frames of the second release",
        lambda: any(line["release_version"] == "1.0.1" for line in loop.results(DEVICE)),
    )
    versions = [line["release_version"] for line in loop.results(DEVICE)]
    assert versions == sorted(versions)
    assert set(versions) == {"1.0.0", "1.0.1"}
    stages = {proof["stage"] for proof in loop.client.evidence(device=DEVICE)}
    assert stages == {"test", "trial"}
    until(
        "telemetry of it",
        lambda: any(
            found["window"]["release_version"] == "1.0.1" and found["window"]["inferred"] > 0
            for found in loop.client.telemetry(device=DEVICE)
        ),
    )
    assert loop.stop(DEVICE) == 0
    assert "Traceback" not in loop.log(DEVICE)


def test_a_budget_is_not_taken_on_trust_where_nothing_is_counted(
    kept_toolchains: Path, tmp_path: Path
) -> None:
    python = python_in(tmp_path, kept_toolchains)
    command = [str(python), "-c", BUDGETED, str(tmp_path / "ledger.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be counted here" in done.stdout
