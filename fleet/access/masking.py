"""What viewers do not read: the passwords in addresses, such as those of cameras and proxies.

Configurations hold addresses with passwords in them, and so do the audit log and what devices say
of their sources. Whoever only looks has no use for them: in every JSON answer to a caller below an
operator, the part before the `@` of an address and its query are left out.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.roles import Role
from fleet.services.credentials import Principal

_STRING = re.compile(rb'"((?:[^"\\]|\\.)*+)"')
_HIDDEN = b"***"


def masked(text: str) -> str:
    """A text without the passwords of the addresses in it.

    >>> masked("rtsp://viewer:secret@10.0.0.7/stream1 answers")
    'rtsp://***@10.0.0.7/stream1 answers'
    >>> masked("http://10.0.0.7/snapshot?user=admin&password=secret")
    'http://10.0.0.7/snapshot?***'
    """
    return _without(text.encode()).decode()


def masked_json(body: bytes) -> bytes:
    """The same of each string of a JSON text."""
    if b"://" not in body:
        return body
    return _STRING.sub(lambda found: b'"' + _without(found[1]) + b'"', body)


def _without(text: bytes) -> bytes:
    return b" ".join(_word(word) for word in text.split(b" "))


def _word(word: bytes) -> bytes:
    scheme, separator, rest = word.partition(b"://")
    if not separator:
        return word
    # A password may hold any character: all up to the last `@` may be one.
    _, at, place = rest.rpartition(b"@")
    place, asks, _ = place.partition(b"?")
    hidden = _HIDDEN + at if at else b""
    return scheme + separator + hidden + place + (asks + _HIDDEN if asks else b"")


class MaskMiddleware:
    """Masks the JSON answers to viewers below a path; not those that show a secret once."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        asks = scope.get("state", {}).get("principal")
        is_viewer = isinstance(asks, Principal) and not asks.role.reaches(Role.OPERATOR)
        if scope["type"] != "http" or not is_viewer or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Masking(send))


class _Masking:
    """Holds a JSON answer back until it is whole."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer."""
        if message["type"] == "http.response.start" and _is_masked(message):
            self._head = message
            return
        if self._head is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            headers = MutableHeaders(scope=self._head)
            body = masked_json(bytes(self._body))
            if body != self._body:
                # The hash of what is hidden would say whether a guess is right.
                del headers["etag"]
            headers["content-length"] = str(len(body))
            await self._send(self._head)
            await self._send({**message, "body": body})


def _is_masked(message: Message) -> bool:
    headers = Headers(raw=message.get("headers", []))
    kind = headers.get("content-type", "")
    is_json = kind.startswith(("application/json", "application/problem+json"))
    return is_json and headers.get("cache-control") != "no-store"
