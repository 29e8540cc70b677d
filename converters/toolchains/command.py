"""Runs one program to its end, with a time limit and an error that says what it wrote last."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeml.errors import ToolchainError

_TAIL_LINES = 6
_TAIL_CHARACTERS = 800


def run_command(
    command: Sequence[str],
    what: str,
    *,
    timeout_s: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    fix: str = "",
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

    Raises:
        ToolchainError: it cannot be started, fails or takes too long.
    """
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        why = f"{command[0]} cannot be started: {error.strerror}."
        raise ToolchainError(what, why=why, fix=fix) from None
    with child:
        try:
            printed, complaints = child.communicate(stdin, timeout_s)
        except subprocess.TimeoutExpired:
            _kill(child)
            _, complaints = child.communicate()
            why = f"It did not come to an end in {timeout_s:g} s.{_last_words(complaints)}"
            raise ToolchainError(what, why=why, fix=fix) from None
        except BaseException:
            _kill(child)
            raise
    if child.returncode:
        code = child.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        raise ToolchainError(what, why=f"It ended with {how}.{_last_words(complaints)}", fix=fix)
    return printed


def tail(text: bytes) -> str:
    """The last lines of a program's complaints."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]


def _last_words(complaints: bytes) -> str:
    words = tail(complaints)
    return f" Its last words: {words}" if words else ""


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
