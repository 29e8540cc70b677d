"""Sends a toolchain one JSON request and returns its one JSON reply; files go by their paths."""

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec

from converters.toolchains.command import run_command
from converters.toolchains.definition import RUNNERS, Definition
from converters.toolchains.emulation import command_in
from converters.toolchains.environment import VENV
from converters.toolchains.store import Installed
from edgeml.errors import ToolchainError

# What leads a Python of the toolchain's own astray: all that is said to Python, and these.
_DROPPED = ("VIRTUAL_ENV", "LD_LIBRARY_PATH")


def ask(
    toolchain: Installed,
    request: dict[str, Any],
    *,
    timeout_s: float = 600,
    verb: Literal["answer", "check"] = "answer",
    cpu: str = "",
) -> dict[str, Any]:
    """Let a toolchain's runner answer a request.

    Args:
        toolchain: an installed one.
        request: what the runner's `answer` takes; paths in it are absolute.
        timeout_s: after so many seconds it is killed, with its children.
        verb: `answer`, or `check`, which takes no request.
        cpu: of an emulated toolchain, which processor; the plainest if empty.

    Raises:
        ToolchainError: it failed, took too long or answered with no JSON object; the error has
            the last lines of what it wrote.
    """
    definition = toolchain.definition
    with tempfile.TemporaryDirectory(prefix="edgeml-toolchain-") as folder:
        printed = run_command(
            server_command(toolchain, verb, cpu),
            f"The toolchain {definition.name} failed.",
            timeout_s=timeout_s,
            stdin=msgspec.json.encode(request),
            environment=environment_of(definition),
            folder=Path(folder),
            fix=f"Run: edgeml toolchain doctor {definition.name}",
        )
    try:
        return msgspec.json.decode(printed, type=dict[str, Any])
    except msgspec.DecodeError:
        raise no_answer(definition, printed) from None


def no_answer(definition: Definition, printed: bytes) -> ToolchainError:
    """A toolchain printed what is no reply."""
    return ToolchainError(
        f"The toolchain {definition.name} gave no answer.",
        why=f"It printed {printed[:200]!r}, which is no JSON object.",
    )


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
