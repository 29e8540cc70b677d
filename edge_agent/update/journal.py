"""The device's one commit point: `state.json`, replaced atomically and fsynced."""

from pathlib import Path

import msgspec

from cloud_sync.messages import Configuration, ReportedState
from cloud_sync.release import write_atomically
from edge_agent.failpoints import reach
from edge_agent.update.machine import ModelState, report
from edgeml.errors import DeviceError

JOURNAL_VERSION = 1


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """All that must survive: the accepted desired state, the configuration, each model."""

    version: int = JOURNAL_VERSION
    accepted: str = ""
    epoch: int = 0
    counter: int = 0
    configuration: Configuration = Configuration()
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
        self.state = self._read()

    def write(self, state: DeviceState) -> None:
        """Make a state the one that a restart finds."""
        reach("journal-before")
        try:
            write_atomically(self._path, msgspec.json.encode(state), 0o600)
        except OSError as error:
            raise DeviceError(
                f"The state file {self._path} cannot be written.",
                why=f"{error.strerror}.",
                fix="Free some space on the disk.",
            ) from error
        self.state = state
        reach("journal-after")

    def _read(self) -> DeviceState:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return DeviceState()
        try:
            return msgspec.json.decode(data, type=DeviceState)
        except msgspec.DecodeError as error:
            raise DeviceError(
                f"The state file {self._path} is damaged.",
                why=f"{error}.",
                fix="Move it away; the agent asks the fleet for its state again.",
            ) from error
