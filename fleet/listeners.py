"""Where the fleet listens: checked and taken before anything starts.

Two rules: a listener that others can reach speaks TLS, and a port in use is found out first,
with the option that changes it.
"""

import errno
import socket
from dataclasses import dataclass
from pathlib import Path

from cloud_sync.address import is_loopback
from edgeml.errors import UserError

_BACKLOG = 2048


@dataclass(frozen=True)
class Listener:
    """One listener: what it is for, where, and the option that moves it."""

    name: str
    host: str
    port: int
    option: str

    @property
    def address(self) -> str:
        """`127.0.0.1:8080`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Tls:
    """Certificate chain and key, PEM files."""

    certificate: Path
    key: Path


def require_tls(listener: Listener, tls: Tls | None) -> None:
    """Refuse a listener that others can reach without TLS.

    Raises:
        UserError: it is one.
    """
    if tls is None and not is_loopback(listener.host):
        raise UserError(
            f"The {listener.name} at {listener.address} was refused.",
            why="Others can reach it, and it would speak without TLS.",
            fix="Give --tls-cert and --tls-key, or listen on 127.0.0.1.",
        )


def take(listener: Listener) -> socket.socket:
    """Take a listener's port.

    Raises:
        UserError: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((listener.host, listener.port))
        taken.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        taken.close()
        raise _cannot(listener, error) from error
    taken.setblocking(False)
    return taken


def check_free(listener: Listener) -> int:
    """Check that a port can be taken by another part; returns it (0 becomes a free one).

    Raises:
        UserError: it cannot.
    """
    taken = take(listener)
    port: int = taken.getsockname()[1]
    taken.close()
    return port


def _cannot(listener: Listener, error: Exception) -> UserError:
    number = getattr(error, "errno", None)
    why = {
        errno.EADDRINUSE: "Another program uses the port.",
        errno.EACCES: "This user may not use the port.",
        errno.EADDRNOTAVAIL: "This machine has no such address.",
    }.get(number or 0, f"{error}.")
    return UserError(
        f"The {listener.name} cannot listen on {listener.address}.",
        why=why,
        fix=f"Stop that program, or name another one with {listener.option}.",
    )
