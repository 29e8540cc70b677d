"""A real agent in a process of its own, and waiting for what it does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

# Without a broker a device asks every few seconds; a test has no time for that.
RUN = """
from edge_agent import link
link.POLL_ALONE_S = 0.3
from edge_agent.cli import app
app()
"""

END_S = 60.0
SOON_S = 20.0  # on a busy machine; what hangs would take longer


def eventually(
    holds: Callable[[], object], timeout_s: float = 90.0, what: str = "", every_s: float = 0.03
) -> None:
    """Wait until something holds; fails with its name after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(every_s)


class AgentProcess:
    """`edgeml agent run`, ended when the block is left."""

    def __init__(
        self,
        config: Path,
        failpoint: str = "",
        *,
        code: str = RUN,
        arguments: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
    ) -> None:
        environment = {**os.environ, "EDGEML_FAILPOINT": failpoint}
        self._path = config.parent / "agent.log"
        self._log = self._path.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "run", "--config", str(config), *options],
            env=environment,
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> "AgentProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_S)
        self._log.close()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.kill()
        self.process.wait(END_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Ask it to end; returns its exit status and the seconds that it took."""
        begun = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(END_S)
        seconds = time.monotonic() - begun
        assert "Traceback" not in self._path.read_text(), self._path.read_text()
        return status, seconds

    def wait_killed(self, timeout_s: float = END_S) -> None:
        """Wait until it was ended by signal 9, as a failpoint does."""
        assert self.process.wait(timeout_s) == -signal.SIGKILL


def descendants(pid: int) -> list[int]:
    """The processes below a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if parent == pid:
            found += [int(entry.name), *descendants(int(entry.name))]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that ended and waits to be reaped does not)."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
