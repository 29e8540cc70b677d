"""What each command does on this device, by name."""

import base64
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cloud_sync.commands import Command, CommandKind
from cloud_sync.messages import ReportedSource
from edge_agent.remote.log_tail import LogTail
from edge_agent.remote.tap import Tap
from edgeml.errors import DeviceError, EdgemlError

if TYPE_CHECKING:
    from edge_agent.trust.identity import Identity
    from hardware.capabilities import Capabilities

SNAPSHOT_S = 10.0
MAX_JPEG = 256 << 10
MAX_TEXT = 128 << 10
_HALVINGS = 5


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What a command brought."""

    media_type: str = ""
    base64: bool = False
    content: str = ""


Do = Callable[[Command], Brought]
"""Does a command; raises EdgemlError with the reason where it cannot."""


def doings(
    identity: "Identity",
    capabilities: "Capabilities",
    *,
    tap: Tap,
    log_tail: LogTail,
    sources: Callable[[], Mapping[str, ReportedSource]],
    restart: Callable[[], None],
) -> dict[CommandKind, Do]:
    """Every command that this device knows."""
    return {
        CommandKind.SNAPSHOT: lambda command: _snapshot(tap, command.source, sources()),
        CommandKind.LOG_TAIL: lambda command: _text(log_tail.last(command.lines)),
        CommandKind.RESTART: lambda _: _restart(restart),
        CommandKind.DIAGNOSTICS: lambda _: _diagnostics(identity, capabilities, sources()),
    }


def _snapshot(tap: Tap, source: str, known: Mapping[str, ReportedSource]) -> Brought:
    if not known or (source and source not in known):
        raise DeviceError(
            f"There is no source {source!r} here." if source else "No source is configured here.",
            why=f"There are: {', '.join(known) or 'none'}.",
        )
    image = tap.next_frame(source or next(iter(known)), SNAPSHOT_S)
    if image is None:
        raise DeviceError("No frame came.", why=f"None did within {SNAPSHOT_S:g} s.")
    picture = _small_jpeg(image)
    return Brought(media_type="image/jpeg", base64=True, content=base64.b64encode(picture).decode())


def _small_jpeg(image: Any) -> bytes:
    """A picture as JPEG, halved until it fits in an answer."""
    from edge_agent.annotate import jpeg

    for _ in range(_HALVINGS):
        picture = jpeg(image)
        if len(picture) <= MAX_JPEG:
            return picture
        image = image[::2, ::2]
    raise DeviceError("The frame is too large for an answer.", why=f"Its shape is {image.shape}.")


class Ending(Exception):  # noqa: N818 -- no fault
    """This process ends now; what follows is the next one's to say."""


def _restart(restart: Callable[[], None]) -> Brought:
    if not os.environ.get("NOTIFY_SOCKET"):
        raise DeviceError(
            "The agent does not end itself here.",
            why="No supervisor runs it that would start it again.",
            fix="Run it as a service: edgeml agent install --help",
        )
    restart()
    raise Ending


def _diagnostics(
    identity: "Identity", capabilities: "Capabilities", sources: Mapping[str, ReportedSource]
) -> Brought:
    from edge_agent.commands.doctor import Patient, examine

    config = identity.data / "agent.toml"
    patient = Patient(
        capabilities=capabilities,
        config=config if config.exists() else None,
        agent=identity.config,
    )
    # The sources are open here already; what they say is better than opening them again.
    findings = examine(patient, without=frozenset({"sources"}))
    said = {"findings": findings, "sources": dict(sources)}
    return _text(msgspec.json.format(msgspec.json.encode(said)).decode(), "application/json")


def _text(text: str, media_type: str = "text/plain") -> Brought:
    """Text, its end where it is long; characters that JSON writes as six count so."""
    while len(msgspec.json.encode(text)) > MAX_TEXT:
        text = text[len(text) // 4 :]
    return Brought(media_type=media_type, content=text)


def why_not(error: Exception) -> str:
    """The reason that an answer gives."""
    return str(error) if isinstance(error, EdgemlError) else f"{type(error).__name__}: {error}"
