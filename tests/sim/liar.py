"""A registry that lies, in front of a real one: everything passes but what a test spoils.

    with Liar(port_of_the_fleet) as liar:
        liar.lie = Liar.wrong_bytes     # how each blob is answered from now on; None: honestly
        liar.told                       # how often it has lied

What it spoils are the answers to `GET .../blobs/...`; all else, hello and records too, it hands
on as it is.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import httpx

_HOP = frozenset({"connection", "transfer-encoding", "content-length", "server", "date"})
Lie = Callable[["_Handler", httpx.Response], None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        self._pass("GET")

    def do_HEAD(self) -> None:
        self._pass("HEAD")

    def do_POST(self) -> None:
        self._pass("POST")

    def _pass(self, method: str) -> None:
        liar = self.server.liar
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in {*_HOP, "host"}}
        headers["Accept-Encoding"] = "identity"
        try:
            found = liar.client.request(method, self.path, content=body, headers=headers)
        except httpx.HTTPError:
            self.close_connection = True
            return
        lie = liar.lie
        # A challenge is no lie's matter: without a token nobody gets a blob.
        spoilt = lie is not None and "/blobs/" in self.path and found.is_success
        with contextlib.suppress(OSError):
            if lie is not None and spoilt:
                liar.told += 1
                lie(self, found)
            else:
                self.answer(found.status_code, found.content, found.headers)

    def answer(
        self,
        status: int,
        body: bytes = b"",
        headers: "httpx.Headers | dict[str, str] | None" = None,
        length: int | None = None,
    ) -> None:
        """Answer; `length` is what the header says, where that is not so."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if status not in {204, 304}:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    liar: "Liar"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on a lie is what is wanted."""


class Liar:
    """See the module."""

    def __init__(self, target: int) -> None:
        self.lie: Lie | None = None
        self.told = 0
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{target}", timeout=30)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.liar = self
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "Liar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self.client.close()


def wrong_bytes(handler: _Handler, found: httpx.Response) -> None:
    """As many bytes, and not those."""
    handler.answer(found.status_code, bytes(len(found.content)), found.headers)


def too_short(handler: _Handler, found: httpx.Response) -> None:
    """Half of what its header says, then the end."""
    body = found.content
    handler.answer(found.status_code, body[: len(body) // 2], found.headers, length=len(body))


def too_long(handler: _Handler, found: httpx.Response) -> None:
    """The blob, and as much again."""
    handler.answer(found.status_code, found.content * 2 + b"more", found.headers)


def endless(handler: _Handler, found: httpx.Response) -> None:
    """A body without a length that goes on until the client has had enough."""
    handler.send_response(found.status_code)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = bytes(1 << 16)
    for _ in range(1 << 14):
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    handler.close_connection = True


def slow(handler: _Handler, found: httpx.Response) -> None:
    """A byte now and then: no read of it ever times out."""
    handler.send_response(found.status_code)
    handler.send_header("Content-Length", str(len(found.content)))
    handler.end_headers()
    for byte in found.content:
        if handler.server.liar.lie is not slow:
            break
        handler.wfile.write(bytes([byte]))
        time.sleep(0.5)
    handler.close_connection = True


def redirect_loop(handler: _Handler, _found: httpx.Response) -> None:
    """To itself, for ever."""
    handler.answer(307, headers={"Location": handler.path})


def status(code: int) -> Lie:
    """Always this status, with a body that is none of the blob's."""

    def answer(handler: _Handler, _found: httpx.Response) -> None:
        handler.answer(code, b"no")

    return answer
