"""The parent without systemd: what hangs, even with the interpreter's lock held, starts again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.errors import ExitCode
from tests.edge_agent.processes import eventually

SUPERVISE = """
import sys
from edge_agent import supervisor
supervisor.PAUSE_S = (0.1, 0.2)
sys.exit(supervisor.supervise([sys.executable, "-c", sys.argv[1]], patience_s=0.8, start_s=20))
"""
# A child that says it is well from a thread, and then does what a test asks of it.
CHILD = """
import ctypes, os, pathlib, sys, threading, time
from edge_agent.systemd import notify, watchdog_period_s
runs = pathlib.Path({runs!r})
with runs.open("a") as stream:
    stream.write(f"{{os.getpid()}}\\n")
first = len(runs.read_text().split()) == 1
def well():
    while True:
        notify(watchdog=True)
        time.sleep(watchdog_period_s() / 4)
notify(ready=True)
threading.Thread(target=well, daemon=True).start()
{then}
"""
# Sleeps in C without letting go of the interpreter's lock, as a broken driver's binding does.
HOLD_THE_LOCK = "ctypes.PyDLL(None).sleep(1000) if first else time.sleep(1000)"


class Supervised:
    def __init__(self, folder: Path, then: str) -> None:
        self.runs = folder / "runs"
        child = CHILD.format(runs=str(self.runs), then=then)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, child], stderr=subprocess.PIPE
        )

    def pids(self) -> list[int]:
        return [int(pid) for pid in self.runs.read_text().split()] if self.runs.exists() else []


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_hang_that_holds_the_interpreters_lock_is_ended_from_outside(tmp_path: Path) -> None:
    it = Supervised(tmp_path, HOLD_THE_LOCK)
    eventually(lambda: len(it.pids()) == 2, what="the second start")
    assert gone(it.pids()[0])
    it.process.send_signal(signal.SIGTERM)
    assert it.process.wait(10) == 128 + signal.SIGTERM
    assert gone(it.pids()[1])
    assert it.process.stderr is not None
    assert b"says nothing any more" in it.process.stderr.read()
    it.process.stderr.close()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit(9)"])
def test_what_ends_with_an_error_starts_again_and_what_ends_well_is_over(
    end: str, tmp_path: Path
) -> None:
    it = Supervised(tmp_path, f"{end} if first else None")
    assert it.process.wait(20) == 0
    assert len(it.pids()) == 2
    assert it.process.stderr is not None
    it.process.stderr.close()


def test_a_command_that_is_wrong_is_not_started_again(tmp_path: Path) -> None:
    it = Supervised(tmp_path, f"sys.exit({int(ExitCode.USAGE)})")
    assert it.process.wait(20) == 2
    assert len(it.pids()) == 1
    assert it.process.stderr is not None
    assert b"not started again" in it.process.stderr.read()
    it.process.stderr.close()


def test_it_is_small(tmp_path: Path) -> None:
    it = Supervised(tmp_path, "time.sleep(1000)")
    eventually(lambda: it.pids(), what="the start")
    statm = Path(f"/proc/{it.process.pid}/statm").read_text().split()
    megabytes = int(statm[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    it.process.terminate()
    it.process.wait(10)
    assert megabytes < 20
    assert it.process.stderr is not None
    it.process.stderr.close()
