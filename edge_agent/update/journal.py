"""The device's one commit point: `state.json`, replaced atomically and fsynced.

Beside it stays the state before (`state.json.old`), read only where the disk has damaged the
newest one: a step back that the machine takes forward again.
"""

import contextlib
import logging
import os
from pathlib import Path

import msgspec

from cloud_sync.messages import Configuration, ReportedState
from cloud_sync.release import write_atomically
from cloud_sync.update_machine import ModelState, report
from edge_agent.failpoints import reach
from edgeml.errors import DeviceError

log = logging.getLogger(__name__)

JOURNAL_VERSION = 1


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """All that must survive: the accepted desired state, the configuration, each model.

    `wanted` is the configuration that the fleet wants, `configuration` the last one that was
    committed; they differ while the wanted one is `trying`, or where `config_error` says why it
    was refused or rolled back. `proven` is the latest time
    that the fleet has proven, in Unix seconds: when a state was issued that this device took.
    """

    version: int = JOURNAL_VERSION
    accepted: str = ""
    epoch: int = 0
    counter: int = 0
    proven: float = 0.0
    configuration: Configuration = Configuration()
    trying: Configuration | None = None
    trying_boots: int = 0
    wanted: Configuration = Configuration()
    config_error: str = ""
    models: dict[str, ModelState] = {}

    def reported(self) -> ReportedState:
        """What the fleet is told."""
        return ReportedState(
            desired_epoch=self.epoch,
            desired_counter=self.counter,
            config_version=self.configuration.config_version,
            config_error=self.config_error,
            models={name: report(model) for name, model in self.models.items()},
        )


class Journal:
    """Reads the state once and writes every change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old = path.with_name(path.name + ".old")
        for beside in path.parent.glob(f".{path.name}.*"):
            beside.unlink(missing_ok=True)  # what a crash in the middle of a write left
        self.state = read_state(path)

    def write(self, state: DeviceState) -> None:
        """Make a state the one that a restart finds.

        Raises:
            DeviceError: it cannot be written; the state before stands.
        """
        if state == self.state:
            return
        reach("journal-before")
        try:
            self._keep_old()
            write_atomically(self._path, msgspec.json.encode(state), 0o600)
        except OSError as error:
            raise DeviceError(
                f"The state file {self._path} cannot be written.",
                why=f"{error.strerror}.",
                fix="Free some space on the disk.",
            ) from error
        self.state = state
        reach("journal-after")

    def _keep_old(self) -> None:
        # A file system without hard links goes without this copy.
        with contextlib.suppress(OSError):
            self._old.unlink(missing_ok=True)
            os.link(self._path, self._old)


def read_state(path: Path) -> DeviceState:
    """The state that was last written; an empty one before the first.

    Raises:
        DeviceError: it is damaged, and so is the one before it.
    """
    try:
        return _decode(path)
    except FileNotFoundError:
        return DeviceState()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        try:
            state = _decode(path.with_name(path.name + ".old"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError):
            raise DeviceError(
                f"The state file {path} is damaged.",
                why=f"{error}.",
                fix="Move it away; the agent asks the fleet for its state again.",
            ) from error
        log.warning("%s is damaged (%s); the state before it is taken", path, error)
        return state


def _decode(path: Path) -> DeviceState:
    return msgspec.json.decode(path.read_bytes(), type=DeviceState)
