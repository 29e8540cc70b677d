"""What a source is made of: a reader that gives frames, and what is said of its state.

Third parties bring a kind of source as an `Opener` under the entry point group
`edgeml.sources`; the entry point's name is the scheme of its URIs.
"""

import re
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from numpy.typing import NDArray

from cloud_sync.messages import ReportedSource, SourceConfig
from edge_agent.mailbox import Frame
from edgeml.errors import DeviceError

Kind = Literal["recorded", "live", "events"]
State = Literal["starting", "running", "stalled", "lost", "ended"]

Deliver = Callable[[Frame], bool | None]
"""Takes a frame; whether it replaced one that waited, or None where no model takes it."""


class Reader(Protocol):
    """An opened source.

    `recorded` frames are held to `fps` by whoever reads them; `live` ones come at about that
    rate, and a silence is a fault; `events` come when they come.
    """

    kind: Kind
    fps: float

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next frame with the monotonic time of its capture; None at the end.

        May wait; one that waits on what it can interrupt ends when it is asked to stop.

        Raises:
            DeviceError: there will be no next frame.
        """
        ...

    def close(self) -> None:
        """Let go of the device or the file."""
        ...


Opener = Callable[[SourceConfig, threading.Event], Reader]
"""Opens a source; the event is set when its reader is to stop."""


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is: `since` is monotonic, `frames` how many it gave."""

    name: str
    model: str
    state: State
    reason: str = ""
    since: float = 0.0
    frames: int = 0

    def line(self) -> dict[str, Any]:
        """What the line of a result file says, as JSON."""
        return {
            "t": round(time.time(), 3),
            "source": self.name,
            "model": self.model,
            "state": self.state,
            "reason": self.reason,
            "for_s": round(time.monotonic() - self.since, 3),
        }

    def reported(self) -> ReportedSource:
        """What the fleet and the local API are told of it now."""
        return ReportedSource(
            model=self.model,
            state=self.state,
            reason=self.reason,
            seconds=round(time.monotonic() - self.since, 3),
        )


class Address(msgspec.Struct, frozen=True):
    """A source's URI in parts; `options` are those of its query."""

    scheme: str
    path: str
    options: dict[str, str]

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number of the query.

        Raises:
            DeviceError: it is none, or out of bounds.
        """
        try:
            value = float(self.options.get(name, default))
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise DeviceError(
                f"The source's {name} is {self.options[name][:40]!r}.",
                why=f"It is a number from {low:g} to {high:g}.",
            )
        return value


def address(uri: str, known: tuple[str, ...] = ()) -> Address:
    """Take a URI apart.

    Raises:
        DeviceError: its query has a key that this kind of source does not know.
    """
    try:
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        return Address("", "", {})
    unknown = [name for name in options if name not in known]
    if unknown:
        raise DeviceError(
            f"The source {shown(uri)!r} has an unknown option {unknown[0]!r}.",
            why=f"Known are {', '.join(known)}." if known else "It takes no options.",
        )
    return Address(parts.scheme, unquote(parts.path), options)


def shown(uri: str) -> str:
    """A URI without what it may hold of a password.

    >>> shown("rtsp://viewer:secret@camera/stream?key=1")
    'rtsp://camera/stream'
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        scheme, rest = "", uri
    at = re.search(r"[/?#]", rest)
    host, path = (rest[: at.start()], rest[at.start() :]) if at else (rest, "")
    if host and "@" in path:
        # A password with one of those signs in it, written as it is: where it ends is unclear.
        return f"{scheme}{mark}..."
    return (scheme + mark + host.rpartition("@")[2] + re.split(r"[?#]", path)[0])[:200]
