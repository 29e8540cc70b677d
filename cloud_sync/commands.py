"""Commands: what the fleet tells a device to do once, what the device answers, what it takes."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from cloud_sync.messages import MESSAGE_VERSION, DeviceId, Name, Text, decode
from edgeml.errors import RemoteError, TrustError

MAX_LIFETIME_S = 31 * 86400.0
MAX_RESULT_CHARS = 384 << 10


class CommandKind(StrEnum):
    """What a device can be told to do, once."""

    SNAPSHOT = "snapshot"
    LOG_TAIL = "log-tail"
    RESTART = "restart"
    DIAGNOSTICS = "diagnostics"
    WIPE = "wipe"


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a device shall do once, before it expires.

    The device journals it by its `id` before it acknowledges it, and acts on an id no second
    time. `kind` is a `CommandKind`; a device answers `refused` to one that it does not know.
    `source` names the source of a `snapshot` (empty: the first), `lines` is for `log-tail`.
    """

    version: int = MESSAGE_VERSION
    device: DeviceId
    id: Annotated[str, Meta(min_length=1, max_length=64)]
    kind: Annotated[str, Meta(max_length=64)]
    issued_at: float
    expires_at: float
    source: Name = ""
    lines: Annotated[int, Meta(ge=1, le=2000)] = 200


class CommandStatus(StrEnum):
    """How a command ended on a device."""

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    EXPIRED = "expired"
    INTERRUPTED = "interrupted"


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command, and what it brought.

    `content` is text as `media_type` says, or base64 of other bytes where `base64` is set.
    `interrupted` is a command during which the agent ended; it is not done again.
    """

    command: Annotated[str, Meta(max_length=64)]
    kind: Annotated[str, Meta(max_length=64)]
    status: CommandStatus
    reason: Text = ""
    seconds: float = 0.0
    media_type: Name = ""
    base64: bool = False
    content: Annotated[str, Meta(max_length=MAX_RESULT_CHARS)] = ""


class CommandRefused(TrustError):  # noqa: N818 -- a verdict more than a fault
    """A command that is not taken; `expired` is the command, where that alone is the reason."""

    def __init__(self, why: str, *, expired: Command | None = None) -> None:
        super().__init__("A command was refused.", why=why)
        self.expired = expired


def accept_command(payload: bytes, *, device: str, now: float) -> Command:
    """Judge what the director has signed; whether it came before is the journal's to say.

    Args:
        payload: the envelope's, whose signature was verified.
        device: this device's id.
        now: the time in Unix seconds, by which it may have expired.

    Raises:
        CommandRefused: it cannot be read or is of another version, is for another device, has
            expired, or would live for longer than any command does.
    """
    try:
        command = decode(payload, Command)
    except RemoteError as error:
        raise CommandRefused(str(error)) from error
    if command.device != device:
        raise CommandRefused(f"It is for {command.device[:64]!r}, this is {device!r}.")
    if not 0 < command.expires_at - command.issued_at <= MAX_LIFETIME_S:
        raise CommandRefused("Its lifetime is not allowed.")
    if now > command.expires_at:
        late = now - command.expires_at
        raise CommandRefused(f"It expired {late:.0f} seconds ago.", expired=command)
    return command
