"""`edgeml agent import`: hands a bundle to the agent, and waits for what becomes of it.

Only the agent installs: it has the runtimes, the frames of the trial and the journal. Where none
runs on the device's data, one does for as long as the import takes.
"""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from cloud_sync.messages import Phase
from edge_agent.importing import ImportResult, places, stage
from edge_agent.update.journal import read_state
from edgeml.errors import DeviceError, EdgemlError, ExitCode

WAIT_S = 0.1
_T = TypeVar("_T")
_AT_REST = frozenset({Phase.COMMITTED, Phase.REFUSED, Phase.ROLLED_BACK, Phase.IDLE})


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a bundle: of each model, its version, phase and reason."""

    device: str
    models: dict[str, "ImportedModel"]

    @property
    def is_installed(self) -> bool:
        """Whether everything that it wanted runs."""
        return all(model.phase is Phase.COMMITTED for model in self.models.values())


class ImportedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a bundle, as the device's journal has it."""

    version: str
    phase: Phase
    reason: str = ""


class BundleError(EdgemlError):
    """The agent refused the bundle, with the exit code of its reason."""

    def __init__(self, result: ImportResult) -> None:
        super().__init__("The bundle was not installed.", why=result.reason)
        self.exit_code = ExitCode(result.exit_code)  # type: ignore[misc]


def bring(path: Path, config: Path, timeout_s: float, say: Callable[[str], None]) -> Imported:
    """Install a bundle.

    Args:
        path: the folder or `.tar` file that `edgeml releases export` wrote.
        config: the device's `agent.toml`.
        timeout_s: how long to wait for its test and trial.
        say: takes a line about what happens.

    Raises:
        BundleError: the agent refused it; the sentence says why.
        UserError: it cannot be read, or is for another device.
        ReleaseError: it is damaged.
        DeviceError: it was not done in time.
    """
    from edge_agent.trust.identity import load_config

    agent = load_config(config)
    data = Path(agent.data_dir)
    info = stage(path, data, agent.device)
    versions = ", ".join(f"{model}:{version}" for model, version in info.models.items())
    say(f"The bundle is whole: {versions or 'no release'}.")
    with _agent(config, data, say) as is_up:
        result = _until(timeout_s, is_up, lambda: _result(data))
        if result.reason:
            raise BundleError(result)
        say("The agent took it: signatures, versions and digests hold. Now its test and trial.")
        found = _until(timeout_s, is_up, lambda: _settled(data, result))
    return Imported(device=agent.device, models=found)


def _result(data: Path) -> ImportResult | None:
    try:
        return msgspec.json.decode(places(data).result.read_bytes(), type=ImportResult)
    except FileNotFoundError:
        return None


def _settled(data: Path, result: ImportResult) -> dict[str, ImportedModel] | None:
    """What became of each model, when nothing moves any more."""
    reported = read_state(data / "state.json").reported().models
    found = {
        model: ImportedModel(version=version, phase=now.phase, reason=now.reason)
        for model, version in result.models.items()
        if (now := reported.get(model)) is not None and now.phase in _AT_REST
    }
    return found if len(found) == len(result.models) else None


def _until(timeout_s: float, is_up: Callable[[], bool], ask: Callable[[], _T | None]) -> _T:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if (found := ask()) is not None:
            return found
        if not is_up():
            break
        time.sleep(WAIT_S)
    raise DeviceError(
        "The bundle is not installed yet.",
        why="The agent ended." if not is_up() else f"{timeout_s:.0f} s were not enough.",
        fix="It goes on where it was: edgeml agent run, edgeml agent status",
    )


@contextlib.contextmanager
def _agent(config: Path, data: Path, say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """The agent that runs on this device, or one for the duration of the block."""
    if _is_running(data):
        yield lambda: True
        return
    import signal
    import subprocess
    import sys

    say("No agent runs here; one does for the import.")
    command = [sys.executable, "-m", "edge_agent.service", "--config", str(config)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # Another may have come up at the same moment; then it does the work.
        yield lambda: child.poll() is None or _is_running(data)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def _is_running(data: Path) -> bool:
    try:
        with (data / "agent.lock").open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
