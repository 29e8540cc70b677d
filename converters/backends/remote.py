"""Executes a compiled artifact by the device's own runtime, in a toolchain's Python."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.executor import LocalExecutor, RemoteSession, open_remote
from converters.toolchains.environment import VENV
from converters.toolchains.store import Installed

_SCRIPT = Path(__file__).with_name("run_module.py")


@contextmanager
def opened_in(toolchain: Installed, runtime: str, model: Path) -> Iterator[RemoteSession]:
    """An artifact, loaded by a runtime that only the toolchain has.

    Raises:
        ModelError: the runtime refuses it, or dies of it.
    """
    python = toolchain.folder / VENV / "bin" / "python"
    executor = LocalExecutor([str(python), "-I", str(_SCRIPT)], name=toolchain.definition.name)
    session = open_remote(executor, runtime, model)
    try:
        yield session
    finally:
        session.close()
