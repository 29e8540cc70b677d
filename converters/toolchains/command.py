"""Runs one program to its end, with a time limit, a log and an error that says where it is."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

from converters.toolchains.logs import Log
from edgeml.errors import ToolchainError


def run_command(
    command: Sequence[str],
    what: str,
    *,
    timeout_s: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    fix: str = "",
    log: Log | None = None,
    longer: str = "",
) -> bytes:
    """Run a command in a process group of its own and return what it printed.

    Args:
        command: program and arguments.
        what: the sentence that says what failed, should it fail.
        timeout_s: after so many seconds it and its children are killed.
        stdin: what it reads.
        environment: all of its environment; this process's if None.
        folder: where it runs.
        fix: what to do next, should it fail.
        log: gets its standard error, and is the caller's to close; one of its own if None.
        longer: what to do next, should it take too long; `fix` if empty.

    Raises:
        ToolchainError: it cannot be started, fails or takes too long.
    """
    with own_log(command) if log is None else nullcontext(log) as said:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said.fileno(),
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            why = f"{command[0]} cannot be started: {error.strerror}."
            raise ToolchainError(what, why=why, fix=fix) from None
        with child:
            try:
                printed, _ = child.communicate(stdin, timeout_s)
            except subprocess.TimeoutExpired:
                kill(child)
                child.communicate()
                how = f"It did not come to an end in {timeout_s:g} s and was killed."
                raise failed(what, how, said, longer or fix) from None
            except BaseException:
                kill(child)
                raise
        if child.returncode:
            raise failed(what, f"It ended with {ending(child.returncode)}.", said, fix)
        return printed


@contextmanager
def own_log(command: Sequence[str]) -> Iterator[Log]:
    """A log that begins with the command that it is of."""
    with closing(Log(Path(command[0]).name)) as log:
        log.say(" ".join(command))
        yield log


def failed(what: str, how: str, log: Log, fix: str) -> ToolchainError:
    """The error of a program that failed, whose log is kept; `how` it ended is a sentence."""
    words = log.last_words()
    return ToolchainError(what, why=f"{how} {log.keep(how)}{words}", fix=fix)


def ending(status: int) -> str:
    """How a process ended, by its exit status: the name of the signal that killed it, else that."""
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a process with its children."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
