"""The agent's side of the fleet's commands, opened late, and again where a disk fails."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cloud_sync.commands import CommandKind, CommandResult
from cloud_sync.messages import RecordKind, ReportedSource, SecurityRecord
from edge_agent.remote.log_tail import LogTail
from edge_agent.remote.tap import Tap
from edgeml.errors import DeviceError

if TYPE_CHECKING:
    from edge_agent.records import Records
    from edge_agent.remote.runner import CommandRunner
    from edge_agent.trust.identity import Identity
    from hardware.capabilities import Capabilities

TURN_S = 0.5
FLUSH_S = 30.0


class Commands:
    """See the module.

    Args:
        identity: who this device is.
        capabilities: what it is.
        records: has the outbox.
        opened: verifies a command's envelope and returns its payload.
        now: the trusted time, None while there is none.
        proven: the latest time that the fleet has proven.
        tap: where a frame can be seen on its way.
        sources: how each source is.
        restart: ends this process so that it is started again.
        wipe: begins to wipe this device; None where it cannot.
    """

    def __init__(
        self,
        identity: "Identity",
        capabilities: "Capabilities",
        records: "Records",
        *,
        opened: Callable[[bytes], bytes],
        now: Callable[[], float | None],
        proven: Callable[[], float],
        tap: Tap,
        sources: Callable[[], Mapping[str, ReportedSource]],
        restart: Callable[[], None],
        wipe: Callable[[], None] | None = None,
    ) -> None:
        self._identity = identity
        self._capabilities = capabilities
        self._records = records
        self._opened = opened
        self._now = now
        self._proven = proven
        self._tap = tap
        self._sources = sources
        self._restart = restart
        self._wipe = wipe
        self._log_tail = LogTail()
        self._lock = threading.Lock()
        self._runner: CommandRunner | None = None
        logging.getLogger().addHandler(self._log_tail)

    def take(self, envelope: bytes, *, asked: bool) -> None:
        """Verify a command and keep it; it is on the disk when this returns.

        Raises:
            DeviceError: it cannot be kept now; it should come again.
        """
        self._running().take(envelope, asked=asked)

    def turn(self) -> None:
        """Do what waits, or wait a moment for more.

        Raises:
            DeviceError: the disk does not let it.
        """
        self._running().turn(TURN_S)

    def close(self) -> None:
        """Close what is open."""
        logging.getLogger().removeHandler(self._log_tail)
        with self._lock:
            if self._runner is not None:
                self._runner.close()

    def _running(self) -> "CommandRunner":
        with self._lock:
            if self._runner is None:
                self._runner = self._make()
            return self._runner

    def _make(self) -> "CommandRunner":
        from edge_agent.remote.doing import Brought, doings
        from edge_agent.remote.journal import CommandJournal
        from edge_agent.remote.runner import CommandRunner

        do = doings(
            self._identity,
            self._capabilities,
            tap=self._tap,
            log_tail=self._log_tail,
            sources=self._sources,
            restart=self._restart,
        )
        if self._wipe is not None:
            do[CommandKind.WIPE] = lambda _: Brought()
        return CommandRunner(
            CommandJournal(self._identity.data / "commands.db"),
            self._identity.config.device,
            opened=self._opened,
            now=self._now,
            proven=self._proven,
            do=do,
            tell=self._tell,
            refused=self._refused,
            last_act={CommandKind.WIPE: self._wipe_when_told},
        )

    def _tell(self, result: CommandResult) -> bool:
        outbox = self._records.outbox
        if outbox is None:
            return False
        outbox.append(RecordKind.RESULT, result)
        return True

    def _refused(self, record: SecurityRecord) -> None:
        self._records.append(RecordKind.SECURITY, record)

    def _wipe_when_told(self) -> None:
        """Let the fleet hear of it first, for a while; then nothing is left to say it."""
        deadline = time.monotonic() + FLUSH_S
        outbox = self._records.outbox
        while outbox is not None and outbox.depth() and time.monotonic() < deadline:
            time.sleep(TURN_S)
        if self._wipe is None:
            raise DeviceError("This device cannot be wiped.")
        self._wipe()
