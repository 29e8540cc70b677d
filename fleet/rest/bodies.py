"""How long the body of a request may be: what is longer is refused before it fills the memory."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeml.errors import RemoteError
from fleet.problem import problem

MAX_BODY = 8 << 20


async def whole(request: Request, most: int) -> bytes:
    """A device's message, of so many bytes at most.

    Raises:
        RemoteError: it is too long, or did not come whole.
    """
    data, is_whole = await received(request, most)
    if not is_whole:
        raise RemoteError("A message was refused.", why="Its end did not come.")
    return data


async def received(request: Request, most: int) -> tuple[bytes, bool]:
    """What came of a device's message, and whether that is all of it.

    Raises:
        RemoteError: it is too long.
    """
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise RemoteError("A message was refused.", why=f"It is longer than {most} bytes.")
    except ClientDisconnect:
        return bytes(data), False
    return bytes(data), True


class BodyLimit:
    """Refuses longer bodies below a path with 413, told beforehand or met on the way."""

    def __init__(self, app: ASGIApp, prefix: str, limit: int = MAX_BODY) -> None:
        self._app = app
        self._prefix = prefix
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "0")
        if told.isdigit() and int(told[:20]) > self._limit:
            answer = problem(413, "The request is too large.", self._sentence())
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def receiving() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(413, self._sentence())
            return message

        return receiving

    def _sentence(self) -> str:
        return f"Its body may have {self._limit} bytes."
