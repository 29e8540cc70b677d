"""A POST that carries an `Idempotency-Key` is done once, however often it is sent.

See the draft "The Idempotency-Key HTTP Header Field" of the IETF's HTTPAPI group. A request
whose answer was lost is sent again with its key, and gets that answer; what is refused before
anything was done (401, 403, 429, 503) is forgotten, and can be tried again.
"""

import hashlib
import re
from collections.abc import Iterable

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeml.errors import EdgemlError, UserError
from fleet.problem import of_error, problem
from fleet.services import idempotency
from fleet.services.context import Services
from fleet.services.idempotency import Answer

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[!-~]{1,255}")
# They change nothing, and their answers may be large: there is no need to keep them.
_NOT_KEPT = ("/plan", "/samples/pull")
_NOTHING_DONE = frozenset({401, 403, 413, 429, 503})
_KEPT = (b"cache-control", b"content-type", b"location", b"www-authenticate")


class RepeatedMiddleware:
    """Keeps the answers to POSTs below a path that have a key, and gives them again."""

    def __init__(self, app: ASGIApp, services: Services, prefix: str) -> None:
        self._app = app
        self._services = services
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        is_change = scope["type"] == "http" and scope["method"] == "POST"
        key = Headers(scope=scope).get(HEADER) if is_change and _actor(scope) else None
        path = scope["path"] if scope["type"] == "http" else ""
        if key is None or not path.startswith(self._prefix) or path.endswith(_NOT_KEPT):
            await self._app(scope, receive, send)
            return
        try:
            body = await Request(scope, receive).body()
            known = await self._begin(key, scope, body)
        except EdgemlError as error:
            await of_error(error)(scope, receive, send)
            return
        except HTTPException as error:
            await problem(error.status_code, str(error.detail))(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if known is not None:
            await _again(known, send)
            return
        kept = _Kept(send)
        try:
            await self._app(scope, _replayed(body, receive), kept)
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(key, scope, kept)

    async def _begin(self, key: str, scope: Scope, body: bytes) -> Answer | None:
        if not _KEY.fullmatch(key):
            raise UserError(
                f"The {HEADER} cannot be used.",
                why="It has from 1 to 255 printable characters of ASCII, and no space.",
                fix="Use a random value, such as a UUID.",
            )
        parts = (scope["method"], scope["path"], scope["query_string"], body)
        fingerprint = _hash(part if isinstance(part, bytes) else part.encode() for part in parts)
        return await anyio.to_thread.run_sync(
            idempotency.begin, self._services, _actor(scope), key, fingerprint
        )

    async def _end(self, key: str, scope: Scope, kept: "_Kept") -> None:
        answer = kept.answer
        if answer is not None and answer.status in _NOTHING_DONE:
            await anyio.to_thread.run_sync(idempotency.forget, self._services, _actor(scope), key)
        elif answer is not None:
            await anyio.to_thread.run_sync(
                idempotency.finish, self._services, _actor(scope), key, answer
            )


class _Kept:
    """Sends an answer on, and keeps it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._is_whole = False

    @property
    def answer(self) -> Answer | None:
        """The answer, if it was whole."""
        if not self._is_whole:
            return None
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in self._headers}
        return Answer(status=self._status, headers=headers, body=bytes(self._body))

    async def __call__(self, message: Message) -> None:
        """Take one message of the answer; the client may be gone, the answer stays."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(n, v) for n, v in message["headers"] if n.lower() in _KEPT]
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            self._is_whole = not message.get("more_body", False)
        await self._send(message)


async def _again(answer: Answer, send: Send) -> None:
    headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers.items()]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    headers.append((b"idempotent-replayed", b"true"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return waiting.pop() if waiting else await receive()

    return receiving


def _actor(scope: Scope) -> str:
    return str(scope.get("state", {}).get("actor", ""))


def _hash(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()
