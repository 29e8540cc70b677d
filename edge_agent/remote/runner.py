"""Takes commands, does each once, and puts the answers into the outbox.

What comes is verified and journalled on the thread that brings it, before it is acknowledged;
it is done on the thread that calls `turn`, so that the link goes on meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from cloud_sync.commands import (
    Command,
    CommandKind,
    CommandRefused,
    CommandResult,
    CommandStatus,
    accept_command,
)
from cloud_sync.messages import SecurityKind, SecurityRecord
from edge_agent.failpoints import reach
from edge_agent.remote.doing import Brought, Do, Ending, why_not
from edge_agent.remote.journal import CommandJournal, Stage
from edgeml.errors import DeviceError, TrustError

log = logging.getLogger(__name__)

RETRY_S = 5.0
REFUSALS_EVERY_S = 60.0


class CommandRunner:
    """See the module.

    Args:
        journal: where commands are kept.
        device: this device's id.
        opened: verifies an envelope of the director's and returns its payload.
        now: the trusted time in Unix seconds, None while there is none.
        proven: the latest time that the fleet has proven.
        do: what each command does.
        tell: puts an answer into the outbox; returns whether it is there.
        refused: told of what no honest fleet would have sent at this time, of each kind at most
            once a minute.
        last_act: done when the answer to such a command is told; it is expected to end this
            process, and is done again after a restart if it did not come that far.
    """

    def __init__(
        self,
        journal: CommandJournal,
        device: str,
        *,
        opened: Callable[[bytes], bytes],
        now: Callable[[], float | None],
        proven: Callable[[], float],
        do: Mapping[CommandKind, Do],
        tell: Callable[[CommandResult], bool],
        refused: Callable[[SecurityRecord], None],
        last_act: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._journal = journal
        self._device = device
        self._opened = opened
        self._now = now
        self._proven = proven
        self._do = do
        self._last_act = last_act or {}
        self._refused_at: dict[SecurityKind, float] = {}
        self._tell = tell
        self._refused = refused
        self._ending = False
        self._wake = threading.Event()
        self._wake.set()
        for command in journal.at(Stage.STARTED):
            self._journal.answer(_ended(command))

    def take(self, envelope: bytes, *, asked: bool) -> None:
        """Verify a command and keep it; it is on the disk when this returns.

        Args:
            envelope: what came.
            asked: whether the fleet answered a question of this device with it.

        Raises:
            DeviceError: it cannot be kept now; it should come again.
        """
        now = self._proven() if asked else self._now()
        if now is None:
            raise DeviceError("A command waits.", why="This device does not know the time yet.")
        try:
            payload = self._opened(envelope)
            command = accept_command(payload, device=self._device, now=now)
        except CommandRefused as refusal:
            self._refuse(refusal)
            return
        except TrustError as error:
            self._refuse(CommandRefused(str(error)))
            return
        if self._journal.take(command, self._proven()):
            log.info("command %s (%s) taken", command.id, command.kind)
            reach("command-journalled")
            self._wake.set()

    def turn(self, timeout_s: float) -> None:
        """Wait for commands, and do what waits."""
        if self._ending:
            time.sleep(timeout_s)
            return
        if not self._wake.wait(timeout_s):
            return
        self._wake.clear()
        try:
            self._answer_what_waits()
            for command in self._journal.at(Stage.JOURNALLED):
                self._journal.start(command)
                reach("command-started")
                self._journal.answer(self._carry_out(command))
                reach("command-answered")
                self._answer_what_waits()
        except Ending:
            # Not answered: that it was done is seen by the agent that comes next.
            self._ending = True
        except DeviceError:
            self._wake.set()
            raise

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _carry_out(self, command: Command) -> CommandResult:
        begun = time.monotonic()
        known = command.kind in self._do
        status, reason, brought = CommandStatus.REFUSED, "this agent does not know it", Brought()
        if known and self._proven() > command.expires_at:
            status, reason = CommandStatus.EXPIRED, "it expired before its turn came"
        elif known:
            try:
                brought = self._do[CommandKind(command.kind)](command)
                status, reason = CommandStatus.DONE, ""
            except Ending:
                raise
            except Exception as error:  # noqa: BLE001 -- whatever it met is the answer
                status, reason = CommandStatus.FAILED, why_not(error)
        log.info("command %s (%s): %s", command.id, command.kind, f"{status} {reason}".rstrip())
        return CommandResult(
            command=command.id,
            kind=command.kind,
            status=status,
            reason=reason,
            seconds=time.monotonic() - begun,
            media_type=brought.media_type,
            base64=brought.base64,
            content=brought.content,
        )

    def _answer_what_waits(self) -> None:
        for result in self._journal.answers():
            if not self._tell(result):
                raise DeviceError("An answer waits.", why="The outbox cannot be used.")
            reach("command-told")
            if act := self._last_act.get(result.kind):
                act()
            self._journal.told(result)

    def _refuse(self, refusal: CommandRefused) -> None:
        log.warning("%s", refusal)
        command = refusal.expired
        if command is None:
            kind = SecurityKind.REFUSED_COMMAND
        else:
            kind = SecurityKind.EXPIRED_COMMAND
            if not self._journal.take(command, self._proven()):
                return  # it came in time, too, and was kept: the acknowledgement was lost
            self._journal.answer(
                CommandResult(
                    command=command.id,
                    kind=command.kind,
                    status=CommandStatus.EXPIRED,
                    reason=refusal.why,
                )
            )
            self._wake.set()
        at = time.monotonic()
        if at - self._refused_at.get(kind, -REFUSALS_EVERY_S) >= REFUSALS_EVERY_S:
            self._refused_at[kind] = at
            self._refused(SecurityRecord(kind=kind, model="", release="", detail=str(refusal)))


def _ended(command: Command) -> CommandResult:
    """The answer of a command during which the agent ended: that was the wish of one kind."""
    wished = command.kind == CommandKind.RESTART
    return CommandResult(
        command=command.id,
        kind=command.kind,
        status=CommandStatus.DONE if wished else CommandStatus.INTERRUPTED,
        reason="" if wished else "the agent ended while it was done",
    )
