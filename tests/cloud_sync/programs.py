"""Programs of Debian that tests talk to: the CNCF registry and an HTTP proxy, each a process."""

import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.needs import program

USER, PASSWORD = "robot", "secret"
_HASHED = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
_PATIENCE_S = 30.0

BASIC = """
auth:
  htpasswd:
    realm: tests
    path: {folder}/htpasswd
"""


@contextmanager
def docker_registry(folder: Path, auth: str = "", port: int = 0) -> Iterator[str]:
    """Debian's docker-registry over an empty folder; gives its address.

    Args:
        folder: for its configuration, log and data.
        auth: the section of its configuration, such as `BASIC`.
        port: a free one by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    (folder / "htpasswd").write_text(f"{USER}:{_HASHED}\n")
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\n"
        f"http:\n  addr: 127.0.0.1:{port}\n  secret: {secrets.token_hex()}\n"
        f"storage:\n  filesystem:\n    rootdirectory: {folder}/data\n"
        "  delete:\n    enabled: true\n" + auth.format(folder=folder)
    )
    with _running([program("docker-registry", "docker-registry"), "serve", str(config)], folder):
        _wait_for(port, folder)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def tinyproxy(folder: Path, *, to_port: int, credentials: str = "") -> Iterator[str]:
    """Debian's tinyproxy, which connects to one port; gives its address.

    Args:
        folder: for its configuration and its log, `tinyproxy.log`.
        to_port: where it connects to.
        credentials: `name password` that it wants; none by default.
    """
    port = free_port()
    config = folder / "tinyproxy.conf"
    config.write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 600\nLogFile "{folder}/tinyproxy.log"\n'
        f"LogLevel Connect\nMaxClients 20\nConnectPort {to_port}\n"
        + (f"BasicAuth {credentials}\n" if credentials else "")
    )
    with _running([program("tinyproxy", "tinyproxy-bin"), "-d", "-c", str(config)], folder):
        _wait_for(port, folder)
        yield f"http://127.0.0.1:{port}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[None]:
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.kill()
            process.wait()


def _wait_for(port: int, folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            assert time.monotonic() < deadline, (folder / "output.log").read_text()
            time.sleep(0.05)
        else:
            return
