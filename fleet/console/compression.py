"""Compression for the console: what never changes is compressed once, not for each browser.

NiceGUI's scripts and styles are some megabytes; compressing them for each first view would hold
up everybody else's page for as long. Their addresses carry NiceGUI's version, so that browsers
keep them, too.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LEAST = 500  # bytes that are worth it
_LEVEL = 6
_MAX_KEPT = 32 << 20
_FOREVER = "private, max-age=31536000, immutable"


class Compression(GZipMiddleware):
    """Gzip, which keeps what it made of files that never change.

    Args:
        app: what answers.
        fixed: prefixes of paths whose answers never change, below the application's own.
    """

    def __init__(self, app: ASGIApp, fixed: tuple[str, ...]) -> None:
        super().__init__(app, minimum_size=_LEAST, compresslevel=_LEVEL)
        self._fixed = fixed
        self._kept: dict[str, list[Message]] = {}
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if not self._is_fixed(scope):
            await super().__call__(scope, receive, send)
            return
        kept = self._kept.get(scope["path"])
        if kept is None:
            kept = []

            async def keep(message: Message) -> None:
                kept.append(message)

            await super().__call__(scope, receive, keep)
            self._keep(scope["path"], kept)
        for message in kept:  # copies, since others write into them
            headers = {"headers": [*message["headers"]]} if "headers" in message else {}
            await send({**message, **headers})

    def _is_fixed(self, scope: Scope) -> bool:
        """Whether a request is for a whole file that never changes, compressed."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return False
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers = Headers(scope=scope)
        asks_for_less = {"range", "if-none-match", "if-modified-since"} & set(headers.keys())
        is_compressed = "gzip" in headers.get("accept-encoding", "")
        return path.startswith(self._fixed) and is_compressed and not asks_for_less

    def _keep(self, path: str, messages: list[Message]) -> None:
        """Keep an answer, if it is one and there is room."""
        if messages[0].get("status") != 200:  # noqa: PLR2004 -- OK
            return
        MutableHeaders(scope=messages[0])["Cache-Control"] = _FOREVER
        size = sum(len(message.get("body", b"")) for message in messages)
        if self._bytes + size <= _MAX_KEPT:
            self._bytes += size
            self._kept[path] = messages
