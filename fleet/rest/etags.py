"""ETags: what has not changed is not sent again, and nobody's change is lost.

Every JSON answer to a GET gets one (the hash of its body). What can be replaced has one of its
content, which a change may name in `If-Match`: then it is made only if nobody else was first.
"""

import hashlib
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Header, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.problem import Changed

T = TypeVar("T")
IfMatch = Annotated[
    str,
    Header(
        alias="If-Match",
        max_length=1024,
        description="The ETag that was read: the change is made only if it still holds.",
    ),
]


def etag_of(value: Any) -> str:
    """The ETag of a content, whatever the order of its keys.

    >>> etag_of({"a": 1, "b": 2}) == etag_of({"b": 2, "a": 1})
    True
    """
    return _quoted(msgspec.json.encode(value, order="sorted"))


def tagged(response: Response, value: T) -> T:
    """A content, for the answer that gets its ETag."""
    response.headers["ETag"] = etag_of(value)
    return value


def matches(header: str, etag: str, *, weakly: bool = True) -> bool:
    """Whether a header `If-None-Match` or, not weakly, `If-Match` names an ETag.

    >>> matches('"a", W/"b"', '"b"'), matches("*", '"b"'), matches('W/"b"', '"b"', weakly=False)
    (True, True, False)
    """
    named = [tag.strip() for tag in header.split(",")]
    return "*" in named or etag in ([t.removeprefix("W/") for t in named] if weakly else named)


def require_match(if_match: str, etag: str) -> None:
    """Refuse a change of what is not any more what the client has read.

    Raises:
        Changed: somebody else has changed it since.
    """
    if if_match and not matches(if_match, etag, weakly=False):
        raise Changed(
            "It is not any more what you have read.",
            why="Somebody else has changed it since.",
            fix="Read it again, and make your change to that.",
        )


class ConditionalMiddleware:
    """Gives every JSON answer to a GET below a path its ETag, and answers 304 where it is known."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        is_read = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}
        if not is_read or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Answer(Headers(scope=scope), send))


class _Answer:
    """Holds an answer's head back until its body is there; a stream goes through as it comes."""

    def __init__(self, asked: Headers, send: Send) -> None:
        self._asked = asked.get("if-none-match", "")
        self._send = send
        self._head: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer."""
        if message["type"] == "http.response.start" and _is_json(message):
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            if not message.get("more_body", False):
                message = self._finish(head, message)
            await self._send(head)
        await self._send(message)

    def _finish(self, head: Message, message: Message) -> Message:
        headers = MutableHeaders(scope=head)
        headers.setdefault("ETag", _quoted(message.get("body", b"")))
        headers.setdefault("Cache-Control", "private, no-cache")
        if not self._asked or not matches(self._asked, headers["ETag"]):
            return message
        head["status"] = 304
        for name in ("content-length", "content-type"):
            del headers[name]
        return {**message, "body": b""}


def _is_json(message: Message) -> bool:
    kind = Headers(raw=message.get("headers", [])).get("content-type", "")
    return message["status"] == 200 and kind.startswith("application/json")  # noqa: PLR2004


def _quoted(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'
