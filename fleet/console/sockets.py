"""A page's socket is its visitor's own.

NiceGUI takes what comes for a page from whichever socket, as whoever opened the page. The page's
id is a secret, but it stands in an address, so that logs of proxies have it. Here a socket may
only join a page of the same visitor, and speak only for the page that it has joined. A browser
that has become somebody else, or whose visitor's role was changed, loads its pages anew.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import Client, core
from socketio.exceptions import ConnectionRefusedError as Refused  # type: ignore[import-untyped]

_RELOAD = "Implicit handshake failed"  # what NiceGUI's script answers by loading the page again
_OF_A_PAGE = ("event", "javascript_response", "ack", "log")

Handler = Callable[..., Any]


def guard() -> None:
    """Put the guard before NiceGUI's handlers, once in a process."""
    handlers: dict[str, Handler] = core.sio.handlers["/"]
    if handlers["event"].__module__ == __name__:
        return
    core.sio.on("connect", _connecting(handlers["connect"]))
    core.sio.on("handshake", _shaking(handlers["handshake"]))
    for name in _OF_A_PAGE:
        core.sio.on(name, _speaking(handlers[name]))


def _connecting(connect: Handler) -> Callable[..., Awaitable[None]]:
    async def connecting(sid: str, environ: dict[str, Any], *more: Any) -> None:
        asked = environ["asgi.scope"].get("query_string", b"").decode("latin-1")
        page = next((part[10:] for part in asked.split("&") if part.startswith("client_id=")), "")
        if not _is_visitors(page, environ):
            raise Refused(_RELOAD)
        await connect(sid, environ, *more)

    return connecting


def _shaking(shake: Handler) -> Callable[..., Awaitable[bool]]:
    async def shaking(sid: str, data: dict[str, Any]) -> bool:
        if not _is_visitors(str(data.get("client_id", "")), core.sio.get_environ(sid)):
            return False
        return bool(await shake(sid, data))

    return shaking


def _speaking(hear: Handler) -> Callable[[str, dict[str, Any]], None]:
    def speaking(sid: str, message: dict[str, Any]) -> None:
        if message.get("client_id") in core.sio.rooms(sid):
            hear(sid, message)

    return speaking


def _is_visitors(page: str, environ: dict[str, Any]) -> bool:
    """Whether a socket is of whoever opened a page; one that is not there is NiceGUI's matter."""
    client = Client.instances.get(page)
    state = environ["asgi.scope"].get("state", {})
    return client is None or client.request.state.principal == state.get("principal")
