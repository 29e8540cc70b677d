"""The demo's child processes: started with a log each, and all stopped whatever happens.

Every child gets a process group of its own and is told by the kernel to end when the demo
does, so that not even `kill -9` of the demo leaves one behind.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from edgeml.errors import DeviceError

STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class Children:
    """A context manager that owns the demo's processes.

    Args:
        logs: folder for one log file a child.
        environment: variables set for every child beside the demo's own.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._interrupted = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        # Python drops a KeyboardInterrupt that arrives while it forks; the note stays.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def start(
        self, name: str, arguments: Sequence[str], environment: Iterable[tuple[str, str]] = ()
    ) -> subprocess.Popen[bytes]:
        """Start `python -m edgeml.cli ARGUMENTS` as a child that stays."""
        with (self._logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment, **dict(environment)},
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 -- the demo has one thread here
            )
        self._running[name] = child
        return child

    def run(
        self, arguments: Sequence[str], *, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run an edgeml command to its end; the caller judges its exit code."""
        return self._finish(command(arguments), timeout_s, None)

    def run_python(
        self, arguments: Sequence[str], *, timeout_s: float, folder: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in a folder, to its end."""
        return self._finish([sys.executable, *arguments], timeout_s, folder)

    def _finish(
        self, line: list[str], timeout_s: float, folder: Path | None
    ) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 -- the demo has one thread here
        ) as child:
            try:
                out, err = child.communicate(timeout=timeout_s)
            except BaseException:
                _signal_group(child, signal.SIGKILL)
                raise
        self.check()
        return subprocess.CompletedProcess(line, child.returncode, out, err)

    def check(self) -> None:
        """Raise if a child that should be running has ended, or Ctrl-C was lost on the way.

        Raises:
            DeviceError: with the last lines of its log.
            KeyboardInterrupt: SIGINT or SIGTERM came before.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        for name, child in self._running.items():
            if child.poll() is not None:
                raise DeviceError(
                    f"The process {name} ended with exit code {child.returncode}.",
                    why=self.tail(name),
                    fix=f"Its log is {self._logs / (name + '.log')}.",
                )

    def tail(self, name: str, lines: int = 8) -> str:
        """The last lines of a child's log."""
        text = (self._logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """Ask every child to end, last started first, and kill what does not in time."""
        for child in reversed(self._running.values()):
            _signal_group(child, signal.SIGTERM)
        for child in self._running.values():
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _signal_group(child, signal.SIGKILL)
                child.wait()
        self._running.clear()


def command(arguments: Sequence[str]) -> list[str]:
    """The command line of an edgeml command, run by this very Python."""
    return [sys.executable, "-m", "edgeml.cli", *arguments]


def _signal_group(child: subprocess.Popen[bytes] | subprocess.Popen[str], number: int) -> None:
    if child.poll() is None:
        os.killpg(child.pid, number)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
