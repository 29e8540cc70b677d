"""Registries that tests talk to over real HTTP: one that can be told to misbehave, one that keeps.

with running(FaultyRegistry()) as registry:
    registry.cut_at = 100       # drops the connection once, after so many bytes
    registry.fault = "corrupt"  # serves other bytes, one of FAULTS, or "404"
    registry.answers = [(503, {"Retry-After": "1"})]
    registry.drip = "headers"   # or "body": a byte now and then, for ever
    registry.endless = "blob"   # or "redirect", "refusal": a body that does not end
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import httpx

from cloud_sync.release import digest_of

DATA = bytes(range(256)) * 2000
DIGEST = digest_of(DATA)
FAULTS = {"corrupt": DATA[:-1] + b"X", "longer": DATA + b"more", "swapped": bytes(len(DATA))}
Server = TypeVar("Server", bound=ThreadingHTTPServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serve within the block."""
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FaultyRegistry(ThreadingHTTPServer):
    """Serves one blob, as wrongly as it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FaultyHandler)
        self.fault = ""
        self.cut_at = 0
        self.cut_every = 0
        self.shift = 0
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.ranges: list[str] = []
        self.authorizations: list[str | None] = []
        self.redirect = ""
        self.drip = ""
        self.endless = ""
        self.closing = threading.Event()

    def server_close(self) -> None:
        """End, with what drips."""
        self.closing.set()
        super().server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class FaultyHandler(BaseHTTPRequestHandler):
    server: FaultyRegistry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def answer(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self) -> None:
        registry = self.server
        registry.ranges.append(self.headers.get("Range", ""))
        registry.authorizations.append(self.headers.get("Authorization"))
        with suppress(ConnectionError):
            self.serve()

    def serve(self) -> None:
        registry = self.server
        if registry.drip == "headers":
            self.dripping(b"HTTP/1.1 200 OK\r\nX-Very-Long: ")
        elif registry.drip == "body":
            self.dripping(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
        elif registry.endless:
            self.without_end()
        elif registry.redirect:
            self.answer(307, 0, Location=registry.redirect + self.path)
        elif registry.fault == "404":
            self.answer(404, 0)
        elif registry.answers:
            status, headers = registry.answers.pop(0)
            self.answer(status, 0, **headers)
        else:
            self.send_blob()

    def dripping(self, begin: bytes) -> None:
        """Send a byte now and then."""
        self.wfile.write(begin)
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()

    def without_end(self) -> None:
        """Send more and more, and never say how much."""
        status = {"redirect": 307, "refusal": 401}.get(self.server.endless, 200)
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        while not self.server.closing.is_set():
            self.wfile.write(bytes(1 << 16))

    def send_blob(self) -> None:
        registry = self.server
        data = FAULTS.get(registry.fault, DATA)
        wanted = self.headers.get("Range")
        start = 0
        if wanted and self.headers.get("If-Range") == f'"{DIGEST}"' and not registry.fault:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) + registry.shift
            content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206, len(data) - start, Content_Range=content_range)
        else:
            self.answer(200, len(data), ETag=f'"{DIGEST}"')
        end = len(data)
        if registry.cut_at:
            end, registry.cut_at = max(start, registry.cut_at), 0
        if registry.cut_every:
            end = min(end, start + registry.cut_every)
        self.wfile.write(data[start:end])
        if end < len(data):
            self.close_connection = True


class Shelf(ThreadingHTTPServer):
    """A registry that takes pushes: its places for uploads carry a query, as Docker's do."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ShelfHandler)
        self.content: dict[str, bytes] = {}
        self.order: list[str] = []
        self.uploads: list[str] = []
        self.authorizations: set[str | None] = set()
        self.place = ""
        self.refuse: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class ShelfHandler(BaseHTTPRequestHandler):
    server: Shelf
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        digest = self.path.rpartition("/")[2]
        found = self.server.content.get(digest)
        self.answer(404) if found is None else self.answer(200, found)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.server.authorizations.add(self.headers.get("Authorization"))
        self.answer(202, Location=f"{self.server.place}{self.path}1?_state=kept")

    def do_PUT(self) -> None:
        shelf = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        shelf.authorizations.add(self.headers.get("Authorization"))
        if shelf.refuse:
            self.answer(shelf.refuse.pop(0))
            return
        place = httpx.URL(self.path)
        digest = place.params.get("digest") or place.path.rpartition("/")[2]
        lost = "uploads" in place.path and place.params.get("_state") != "kept"
        if lost or digest_of(body) != digest:
            self.answer(400)
        else:
            shelf.content[digest] = body
            shelf.order.append(digest)
            self.answer(201)
