"""Sends small blobs in pieces that all who ask at about the same time share.

In a rollout every device asks for the same few files: a piece is read once, on a thread, and then
sent from memory, where each read of each device would be a turn of a thread.
"""

import asyncio
from collections import OrderedDict
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE_BYTES = 256 << 10
MAX_BLOB_BYTES = 8 << 20
_MOST = (32 << 20) // PIECE_BYTES


class Pieces:
    """The pieces that were asked for last, at most 32 MiB of them. For one event loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], asyncio.Future[bytes]] = OrderedDict()

    async def get(self, path: Path, digest: str, offset: int) -> bytes:
        """A piece of the blob in a file; empty behind its end.

        Raises:
            OSError: it cannot be read; whoever asks next has it tried again.
        """
        key = digest, offset
        found = self._known.get(key)
        if found is None:
            found = asyncio.ensure_future(run_in_threadpool(_read, path, offset))
            self._known[key] = found
            found.add_done_callback(lambda done: self._forget_failed(key, done))
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        # One of those who wait may be gone before it has come.
        return await asyncio.shield(found)

    def _forget_failed(self, key: tuple[str, int], done: "asyncio.Future[bytes]") -> None:
        failed = done.cancelled() or done.exception() is not None
        if failed and self._known.get(key) is done:
            del self._known[key]


class Whole(Response):
    """A blob from its first byte to its last.

    Args:
        pieces: those of all.
        path: the blob's file.
        digest: what the blob is known by.
        size: in bytes, at most `MAX_BLOB_BYTES`.
        headers: of the answer, but for the length.
    """

    media_type = "application/octet-stream"

    def __init__(
        self, pieces: Pieces, path: Path, digest: str, size: int, headers: dict[str, str]
    ) -> None:
        super().__init__(None, headers=headers | {"Content-Length": str(size)})
        self._pieces = pieces
        self._path = path
        self._digest = digest
        self._size = size

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        sent = 0
        while True:
            piece = await self._pieces.get(self._path, self._digest, sent)
            sent += len(piece)
            more = sent < self._size and piece != b""
            await send({"type": "http.response.body", "body": piece, "more_body": more})
            if not more:
                return


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(PIECE_BYTES)
