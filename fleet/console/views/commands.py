"""Commands to a device as its page shows them, and what they brought. Pure."""

import base64
import binascii
from collections.abc import Sequence

import msgspec

from fleet.console.views.wording import clock, number
from fleet.resources import CommandInfo

MAX_IMAGE = 512 << 10


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """A command and where it stands."""

    id: str
    kind: str
    status: str
    tone: str
    about: str
    reason: str


def commands(items: Sequence[CommandInfo]) -> tuple[CommandLine, ...]:
    """The commands, newest first."""
    tones = {"done": "good", "failed": "bad", "refused": "warn", "interrupted": "warn",
             "expired": "warn", "pending": "busy"}  # fmt: skip
    return tuple(
        CommandLine(
            id=item["id"],
            kind=item["kind"],
            status=item["status"],
            tone=tones.get(item["status"], "idle"),
            about=f"asked {clock(item['created_at'])} by {item['created_by']}"
            + (f", took {number(item['seconds'], 's')}" if item["finished_at"] else ""),
            reason=item["reason"],
        )
        for item in items
    )


def newest(items: Sequence[CommandInfo], kind: str) -> CommandInfo | None:
    """The newest command of a kind that was done."""
    return next((i for i in items if i["kind"] == kind and i["status"] == "done"), None)


def image(command: CommandInfo) -> str:
    """The address (`data:`) of the picture that a snapshot brought; empty where it is none."""
    kind, content = command["media_type"], command["content"]
    if kind not in {"image/jpeg", "image/png"} or not command["base64"]:
        return ""
    if len(content) > MAX_IMAGE * 4 // 3:
        return ""
    try:
        base64.b64decode(content, validate=True)
    except binascii.Error:
        return ""
    return f"data:{kind};base64,{content}"


def text(command: CommandInfo) -> str:
    """The text that a command brought."""
    return "" if command["base64"] else command["content"]
