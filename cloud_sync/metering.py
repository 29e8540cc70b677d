"""What the network really cost, as the kernel counted it (`TCP_INFO`), for HTTP and MQTT alike.

Counted is every IP packet's worth of a connection: payload with TLS and HTTP around it, the
handshakes, what was sent again, acknowledgements, and the TCP and IP headers of every segment.
Not counted are name look-ups, packets that never became a connection, and what lies below IP.
A connection to a proxy is counted, what the proxy does is not.

    meter = Meter()
    meter.watch_http(client)            # an httpx.Client
    meter.traffic()                     # Traffic(sent=..., received=...)
"""

import contextlib
import functools
import os
import socket
import struct
import threading
import weakref
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import httpx

# Offsets in Linux' struct tcp_info; the fields are there since 4.19.
_INFO_BYTES = 232
_RECEIVED = 128
_SEGMENTS = 136
_SENT = 200
_OPTIONS = 5
_TIMESTAMPS = 1
_TCP_HEADER = 20
_TCP_TIMESTAMPS = 12
_IP_HEADER = {socket.AF_INET: 20, socket.AF_INET6: 40}


@functools.cache
def is_counted() -> bool:
    """Whether this kernel counts connections: Linux since 4.19 does, QEMU's user mode does not."""
    with socket.socket() as unused, contextlib.suppress(OSError):
        info = unused.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        return len(info) >= _SENT + 8
    return False


class Traffic(msgspec.Struct, frozen=True):
    """Bytes that went out and came in."""

    sent: int = 0
    received: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.sent + self.received

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.sent + other.sent, self.received + other.received)

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.sent - other.sent, self.received - other.received)


class Meter:
    """Counts what the connections that it watches cost; safe to use from several threads.

    It holds each open for a moment longer than its owner: whoever closes a client asks for the
    `traffic` once more, whoever closes a socket says `end` before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: list[_Watched] = []
        self._ended = Traffic()
        self._newest = threading.local()

    def watch_http(self, client: "httpx.Client") -> None:
        """Count all connections that a client makes from now on, to proxies and redirects, too."""
        client.event_hooks = {
            **client.event_hooks,
            "request": [*client.event_hooks["request"], self._follow],
        }

    def watch(self, connection: Any) -> None:
        """Count a TCP socket, from its beginning; what is no TCP socket costs nothing."""
        with contextlib.suppress(OSError, AttributeError):
            own = socket.socket(fileno=os.dup(connection.fileno()))
            watched = _Watched(connection, own, _IP_HEADER.get(own.family, 0))
            with self._lock:
                self._watched.append(watched)
            self._newest.connection = watched

    def end(self, connection: Any) -> None:
        """Count a socket for the last time, before it is closed, and let go of it."""
        with self._lock:
            for watched in list(self._watched):
                if watched.owner is connection:
                    self._let_go(watched)

    def traffic(self) -> Traffic:
        """What all of them cost until now; never less than before."""
        with self._lock:
            total = Traffic()
            for watched in list(self._watched):
                if watched.is_over:
                    self._let_go(watched)
                else:
                    total += watched.read()
            return self._ended + total

    @property
    def buffered(self) -> int:
        """How much may have come that was not counted yet when the process is killed."""
        with self._lock:
            return sum(watched.buffer for watched in self._watched)

    def cut(self) -> None:
        """Cut all connections: whoever waits for one finds it closed."""
        with self._lock:
            for watched in self._watched:
                with contextlib.suppress(OSError):
                    watched.own.shutdown(socket.SHUT_RDWR)

    def _let_go(self, watched: "_Watched") -> None:
        self._ended += watched.read()
        watched.own.close()
        self._watched.remove(watched)

    def _follow(self, request: "httpx.Request") -> None:
        """Have httpcore tell of the connections that a request makes, each time it is sent."""
        # A redirect takes the extensions along.
        request.extensions = {**request.extensions, "trace": self._told}

    def _told(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self.watch(info["return_value"].get_extra_info("socket"))
        elif event.endswith("start_tls.started"):
            self._change_hands(None, begun=True)
        elif event.endswith("start_tls.complete"):
            self._change_hands(info["return_value"].get_extra_info("socket"))
        elif event.endswith((".failed", "response_closed.complete")):
            self._change_hands(None)
            self.traffic()

    def _change_hands(self, owner: Any, *, begun: bool = False) -> None:
        """TLS takes a socket over: what it was taken from only looks closed meanwhile."""
        newest: _Watched | None = getattr(self._newest, "connection", None)
        if newest is not None:
            newest.owner = owner or newest.owner
            newest.changes_hands = begun


class _Watched:
    """One connection: its owner's socket, and a handle of our own that outlives it by a moment."""

    def __init__(self, owner: Any, own: socket.socket, ip_header: int) -> None:
        self.owner = owner
        self.own = own
        self.changes_hands = False
        self._ip_header = ip_header
        self._last = Traffic()
        # At the end of the process, too, whoever forgot to close its client.
        weakref.finalize(self, own.close)

    @property
    def is_over(self) -> bool:
        return not self.changes_hands and self.owner.fileno() < 0

    @property
    def buffer(self) -> int:
        # The kernel lets it grow only as the reader reads.
        try:
            return 2 * self.own.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        except OSError:
            return 0

    def read(self) -> Traffic:
        try:
            info = self.own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        except OSError:
            return self._last
        if len(info) < _SENT + 8:
            return self._last  # see `is_counted`
        header = self._ip_header + _TCP_HEADER
        if info[_OPTIONS] & _TIMESTAMPS:
            header += _TCP_TIMESTAMPS
        (received,) = struct.unpack_from("=Q", info, _RECEIVED)
        (sent,) = struct.unpack_from("=Q", info, _SENT)
        out, came = struct.unpack_from("=II", info, _SEGMENTS)
        self._last = Traffic(sent + out * header, received + came * header)
        return self._last
