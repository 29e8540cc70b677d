"""Transfer over real HTTP, from a registry that can be told to misbehave."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloud_sync.release import Blobs, digest_of
from cloud_sync.transfer import OciClient
from edgeml.errors import ReleaseError, RemoteError

DATA = bytes(range(256)) * 2000
DIGEST = digest_of(DATA)


class Registry(ThreadingHTTPServer):
    """Serves one blob; `fault` says how to do it wrongly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fault = ""
        self.cut_at = 0
        self.ranges: list[str] = []
        self.authorizations: list[str | None] = []
        self.redirect = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        registry = self.server
        wanted = self.headers.get("Range")
        registry.ranges.append(wanted or "")
        registry.authorizations.append(self.headers.get("Authorization"))
        if registry.redirect:
            self.send_response(307)
            self.send_header("Location", registry.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if registry.fault == "404":
            self.send_error(404)
            return
        data = DATA
        if registry.fault == "corrupt":
            data = DATA[:-1] + b"X"
        elif registry.fault == "longer":
            data = DATA + b"more"
        elif registry.fault == "swapped":
            data = bytes(len(DATA))
        start = 0
        if wanted and self.headers.get("If-Range") == f'"{DIGEST}"' and not registry.fault:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{DIGEST}"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data)
        if registry.cut_at:
            end, registry.cut_at = max(start, registry.cut_at), 0
        self.wfile.write(data[start:end])
        if end < len(data):
            self.close_connection = True


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def client(registry: Registry) -> Iterator[OciClient]:
    made = OciClient(registry.url, sleep=lambda _seconds: None)
    yield made
    made.close()


def fetch(client: OciClient, blobs: Blobs) -> int:
    return client.fetch_blob("m", DIGEST, len(DATA), blobs)


def test_a_blob_arrives_once(client: OciClient, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    assert fetch(client, blobs) == len(DATA)
    assert blobs.read(DIGEST, len(DATA)) == DATA
    assert fetch(client, blobs) == 0


def test_a_cut_download_goes_on_where_it_stopped(
    client: OciClient, registry: Registry, tmp_path: Path
) -> None:
    registry.cut_at = 100_000
    blobs = Blobs(tmp_path)
    received = fetch(client, blobs)
    assert blobs.has(DIGEST)
    assert registry.ranges[0] == ""
    assert registry.ranges[1].startswith("bytes=")
    assert received == len(DATA), "no byte came twice"


def test_a_download_goes_on_after_a_restart(
    client: OciClient, registry: Registry, tmp_path: Path
) -> None:
    blobs = Blobs(tmp_path)
    part = blobs.path(DIGEST).with_name(f".{blobs.path(DIGEST).name}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:200_000])
    assert fetch(client, blobs) == len(DATA) - 200_000
    assert registry.ranges == ["bytes=200000-"]
    assert blobs.read(DIGEST, len(DATA)) == DATA


@pytest.mark.parametrize("fault", ["corrupt", "swapped", "longer"])
def test_what_is_not_the_blob_is_refused_and_nothing_is_left(
    client: OciClient, registry: Registry, tmp_path: Path, fault: str
) -> None:
    registry.fault = fault
    blobs = Blobs(tmp_path)
    with pytest.raises(ReleaseError):
        fetch(client, blobs)
    assert not blobs.has(DIGEST)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_spoilt_start_is_found_out_and_the_next_try_begins_anew(
    client: OciClient, tmp_path: Path
) -> None:
    blobs = Blobs(tmp_path)
    part = blobs.path(DIGEST).with_name(f".{blobs.path(DIGEST).name}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"X" * 1000)
    with pytest.raises(ReleaseError):
        fetch(client, blobs)
    assert fetch(client, blobs) == len(DATA)


def test_what_the_registry_lacks_is_asked_for_once(
    client: OciClient, registry: Registry, tmp_path: Path
) -> None:
    registry.fault = "404"
    with pytest.raises(RemoteError, match="404"):
        fetch(client, Blobs(tmp_path))
    assert len(registry.ranges) == 1


def test_a_registry_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    client = OciClient("http://127.0.0.1:9", sleep=lambda _seconds: None)
    with pytest.raises(RemoteError, match="cannot be reached"):
        fetch(client, Blobs(tmp_path))
    client.close()


def test_a_redirect_to_another_host_does_not_take_the_credentials_along(
    registry: Registry, tmp_path: Path
) -> None:
    front = Registry()
    front.redirect = registry.url.replace("127.0.0.1", "localhost")
    thread = threading.Thread(target=front.serve_forever, daemon=True)
    thread.start()
    client = OciClient(front.url, auth=Secret(), sleep=lambda _seconds: None)
    fetch(client, Blobs(tmp_path))
    client.close()
    front.shutdown()
    front.server_close()
    thread.join()
    assert front.authorizations == ["secret"]
    assert registry.authorizations == [None]


import httpx  # noqa: E402 -- beside what it is for


class Secret(httpx.Auth):
    """Credentials for one host."""

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["Authorization"] = "secret"
        yield request
