"""Sends a toolchain one JSON request and returns its one JSON reply; files go by their paths."""

import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import msgspec

from converters.toolchains.command import run_command
from converters.toolchains.definition import RUNNERS, Definition
from converters.toolchains.emulation import command_in
from converters.toolchains.environment import VENV
from converters.toolchains.logs import Log
from converters.toolchains.store import Installed
from edgeml.errors import ToolchainError, UserError

_TIMEOUT = "EDGEML_TOOLCHAIN_TIMEOUT"

# What leads a Python of the toolchain's own astray: all that is said to Python, and these.
_DROPPED = ("VIRTUAL_ENV", "LD_LIBRARY_PATH")


def ask(
    toolchain: Installed,
    request: dict[str, Any],
    *,
    timeout_s: float = 600,
    verb: Literal["answer", "check"] = "answer",
    cpu: str = "",
    log: Path | None = None,
) -> dict[str, Any]:
    """Let a toolchain's runner answer a request.

    Args:
        toolchain: an installed one.
        request: what the runner's `answer` takes; paths in it are absolute.
        timeout_s: after so many seconds it is killed, with its children; what
            EDGEML_TOOLCHAIN_TIMEOUT says comes first.
        verb: `answer`, or `check`, which takes no request.
        cpu: of an emulated toolchain, which processor; the plainest if empty.
        log: a file that gets all that it wrote, once it has answered.

    Returns:
        The reply. Of one that is `refused`, the log is kept, and `log` says where.

    Raises:
        ToolchainError: it failed, took too long or answered with no JSON object; the error has
            the last lines of what it wrote, and says where all of it is.
    """
    definition = toolchain.definition
    with (
        tempfile.TemporaryDirectory(prefix="edgeml-toolchain-") as folder,
        closing(Log(definition.name)) as said,
    ):
        encoded = msgspec.json.encode(request)
        said.say(asked(definition, encoded))
        printed = run_command(
            server_command(toolchain, verb, cpu),
            f"The toolchain {definition.name} failed.",
            timeout_s=limit_s(timeout_s),
            stdin=encoded,
            environment=environment_of(definition),
            folder=Path(folder),
            fix=f"Run: edgeml toolchain doctor {definition.name}",
            log=said,
            longer=longer(limit_s(timeout_s)),
        )
        if log is not None:
            log.write_bytes(said.read())
        return decoded(definition, printed, said)


def asked(definition: Definition, request: bytes) -> str:
    """A request, as a line of the toolchain's log."""
    return f"{definition.name} {definition.version} is asked: {request.decode()}"


def decoded(definition: Definition, printed: bytes, log: Log) -> dict[str, Any]:
    """A toolchain's reply; the log of one that refuses is kept, and its `log` says where.

    Raises:
        ToolchainError: what it printed is no reply.
    """
    try:
        reply = msgspec.json.decode(printed, type=dict[str, Any])
    except msgspec.DecodeError:
        how = f"It printed {printed[:200]!r}, which is no JSON object."
        raise ToolchainError(
            f"The toolchain {definition.name} gave no answer.", why=f"{how} {log.keep(how)}"
        ) from None
    if reason := reply.get("refused"):
        reply["log"] = log.keep(f"It refused: {reason}")
    return reply


def limit_s(usual_s: float) -> float:
    """After how many seconds a toolchain is killed: what the user says, or what is usual.

    Raises:
        UserError: the user says something that is no number of seconds.
    """
    said = os.environ.get(_TIMEOUT) or str(usual_s)
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(
            f"{_TIMEOUT} is {said!r}, which is no number of seconds.",
            fix="Give one, for example 1800.",
        )
    return seconds


def longer(killed_s: float) -> str:
    """What to do about a toolchain that was killed after so many seconds."""
    return f"Give it more time, for example {_TIMEOUT}={3 * killed_s:g}, or a smaller model."


def server_command(toolchain: Installed, verb: str, cpu: str = "") -> list[str]:
    """What starts a toolchain's runner, to answer requests or to check itself."""
    runner = str(toolchain.definition.runner_path)
    return [*_python(toolchain, cpu), str(RUNNERS / "serve.py"), runner, verb]


def _python(toolchain: Installed, cpu: str) -> list[str]:
    emulation = toolchain.definition.emulation
    if emulation is None:
        # As -I does, but that heeds no PYTHONHASHSEED of the definition's.
        return [str(toolchain.folder / VENV / "bin" / "python"), "-s", "-P"]
    chosen = next((c for c in emulation.cpus if c.name == cpu), emulation.cpus[0])
    return command_in(toolchain, chosen)


def environment_of(definition: Definition) -> dict[str, str]:
    """What a runner may know of this process's environment."""
    emulation = definition.emulation
    kept = dict(os.environ)
    if not emulation or emulation.root:
        kept = {n: v for n, v in kept.items() if n not in _DROPPED and not n.startswith("PYTHON")}
    return kept | {"PYTHONNOUSERSITE": "1"} | definition.environment
