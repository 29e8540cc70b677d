"""Sends one request to a place that nobody knows: bounded in time, size and reach.

The address is checked when the connection is made, and the connection goes to just that address,
so that a name cannot mean another machine a moment later. No proxy is asked, no redirect
followed, and whoever answers slowly is left when the time is over.
"""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import httpcore
import httpx
import msgspec

from fleet.webhooks.addresses import may_reach

TIMEOUT_S = 15.0
_MAX_ANSWER = 16 << 10
_MAX_ERROR = 300


class Outcome(msgspec.Struct, frozen=True):
    """What came of a request: the answer's status, or none, and what went wrong."""

    status: int | None
    error: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether the receiver has it."""
        return not self.error


def post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    allow_private: bool,
    timeout_s: float = TIMEOUT_S,
) -> Outcome:
    """Send a body; any answer but 2xx, and none within the time, is an error."""
    end = time.monotonic() + timeout_s
    pool = httpcore.ConnectionPool(
        ssl_context=_context(), network_backend=_Guarded(end, allow_private=allow_private)
    )
    limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
    try:
        with (
            pool,
            pool.stream(
                "POST",
                url,
                headers=list(headers.items()),
                content=body,
                extensions={"timeout": limits},
            ) as answer,
        ):
            seen = 0
            for chunk in answer.iter_stream():
                seen += len(chunk)
                if seen > _MAX_ANSWER:
                    break
            return _judged(answer.status)
    except httpcore.TimeoutException:
        return Outcome(None, f"It did not answer within {timeout_s:g} s.")
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ValueError) as error:
        return Outcome(None, f"{type(error).__name__}: {error}"[:_MAX_ERROR])


def _judged(status: int) -> Outcome:
    if 200 <= status < 300:  # noqa: PLR2004
        return Outcome(status)
    if 300 <= status < 400:  # noqa: PLR2004
        return Outcome(status, f"It answered {status}; redirects are not followed.")
    return Outcome(status, f"It answered {status}.")


@cache
def _context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


class _Guarded(httpcore.SyncBackend):
    """Connects to allowed addresses only, and to what was checked."""

    def __init__(self, end: float, *, allow_private: bool) -> None:
        self._end = end
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a name that answers."""
        del timeout
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
        if not all(may_reach(a, allow_private=self._allow_private) for a in addresses):
            raise httpcore.ConnectError(f"{host} leads to an address that is not a public one")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                stream = super().connect_tcp(
                    address, port, _left(self._end), local_address, socket_options
                )
            except httpcore.ConnectError as error:
                failure = error
            else:
                return _Hurried(stream, self._end)
        raise failure


class _Hurried(httpcore.NetworkStream):
    """A stream on which everything together has to be done by a certain time."""

    def __init__(self, stream: httpcore.NetworkStream, end: float) -> None:
        self._stream = stream
        self._end = end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read, in the time that is left."""
        del timeout
        return self._stream.read(max_bytes, _left(self._end))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, in the time that is left."""
        del timeout
        self._stream.write(buffer, _left(self._end))

    def close(self) -> None:
        """Close."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Begin TLS, in the time that is left."""
        del timeout
        stream = self._stream.start_tls(ssl_context, server_hostname, _left(self._end))
        return _Hurried(stream, self._end)

    def get_extra_info(self, info: str) -> Any:
        """Tell of the connection."""
        return self._stream.get_extra_info(info)


def _left(end: float, now: Callable[[], float] = time.monotonic) -> float:
    left = end - now()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left
