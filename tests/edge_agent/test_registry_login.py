"""Credentials for registries: kept from others, given to their own registry and to no other."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud_sync.release import Blobs, digest_of
from cloud_sync.transfer import OciClient
from edge_agent.cli import app
from edge_agent.registry_login import credentials, log_in
from edgeml.errors import RemoteError, TrustError, UserError
from tests.edge_agent.scene import Scene

BLOB = b"weights" * 100


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "identity").mkdir()
    return tmp_path


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry that wants the name and the password of cam-1."""
    wanted = "Basic " + base64.b64encode(b"cam-1:secret").decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="here"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(BLOB)))
            self.end_headers()
            self.wfile.write(BLOB)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(data: Path, registry: str) -> Blobs:
    client = OciClient(registry, credentials(data)(registry))
    blobs = Blobs(data / "store")
    try:
        client.fetch_blob("toy", digest_of(BLOB), len(BLOB), blobs)
    finally:
        client.close()
    return blobs


def test_a_device_that_is_logged_in_may_pull(data: Path, registry: str) -> None:
    with pytest.raises(RemoteError, match="401"):
        fetch(data, registry)
    log_in(data, registry, "cam-1", "secret")
    assert fetch(data, registry).has(digest_of(BLOB))


def test_nobody_else_can_read_them(data: Path) -> None:
    log_in(data, "https://registry.example", "cam-1", "secret")
    path = data / "identity" / "registries.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(TrustError, match="read by others"):
        credentials(data)("https://registry.example")


def test_each_registry_gets_its_own_and_no_other(data: Path) -> None:
    log_in(data, "https://registry.example/team-a", "cam-1", "secret")
    of = credentials(data)
    assert of("https://registry.example/team-b") is not None
    assert of("https://registry.example:5000") is None
    assert of("https://other.example") is None


def test_logging_out_forgets(data: Path) -> None:
    log_in(data, "https://registry.example", "cam-1", "secret")
    log_in(data, "https://registry.example", "", "")
    assert credentials(data)("https://registry.example") is None


def test_an_empty_password_is_said_and_a_damaged_file_is_no_traceback(data: Path) -> None:
    with pytest.raises(UserError, match="empty"):
        log_in(data, "https://registry.example", "cam-1", "")
    log_in(data, "https://registry.example", "cam-1", "secret")
    (data / "identity" / "registries.json").write_text('{"secret')
    with pytest.raises(TrustError, match="cannot be read") as failed:
        credentials(data)("https://registry.example")
    assert "secret" not in str(failed.value)


def test_the_command_takes_the_password_from_standard_input(scene: Scene) -> None:
    done = CliRunner().invoke(
        app,
        ["login", "https://registry.example", "--username", "cam-1", "--config", str(scene.config)],
        input="secret\n",
    )
    assert done.exit_code == 0, done.output
    assert "secret" not in done.output
    assert credentials(scene.data)("https://registry.example") is not None
