"""A blob's download in bytes a second, beside plain httpx.

Both stream the same blob from the same server over loopback to a new file with its SHA-256, and
fsync it: what is not on the disk has not come. The server is a process of its own that answers
with `sendfile`, so that it holds nobody up. edgeml's does what it does on a device: resumable,
bounded in time and length, counted by the kernel, and charged to the byte ledger, durably,
before it comes.
"""

import hashlib
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from benchmarks.measure import Row, interleave, ratio_row
from cloud_sync.messages import Cause
from cloud_sync.release import Blobs, digest_of
from cloud_sync.transfer import OciClient
from edge_agent.ledger import Ledger

GOAL = 0.9
_MEGABYTE = 1e6


def rows(quick: bool) -> Iterator[Row]:
    """Measure both in turns."""
    size, rounds = (64 << 20, 9) if quick else (256 << 20, 15)
    data = os.urandom(1 << 20) * (size >> 20)
    digest = digest_of(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blob = folder / "blob"
        blob.write_bytes(data)
        del data
        with _served(blob) as url, closing(Ledger(folder / "ledger.db")) as ledger:
            measured = interleave(
                lambda: _edgeml(url, digest, size, folder, ledger),
                lambda: _httpx(url, digest, size, folder),
                rounds,
            )
    yield ratio_row(
        "download.throughput_vs_httpx",
        measured,
        unit="MB/s",
        peer="httpx",
        goal=f"at least {GOAL}",
        at_least=GOAL,
    )


def _edgeml(url: str, digest: str, size: int, folder: Path, ledger: Ledger) -> float:
    blobs = Blobs(folder / "blobs")
    blobs.remove(digest)
    with closing(OciClient(url)) as client:
        account = ledger.account(client.meter, Cause.FULL, "r1")
        begin = time.perf_counter()
        assert client.fetch_blob("m", digest, size, blobs, account) == size
        return size / (time.perf_counter() - begin) / _MEGABYTE


def _httpx(url: str, digest: str, size: int, folder: Path) -> float:
    file = folder / "plain"
    file.unlink(missing_ok=True)
    with httpx.Client(trust_env=False) as client:
        begin = time.perf_counter()
        hashed = hashlib.sha256()
        with client.stream("GET", f"{url}/v2/m/blobs/{digest}") as answer, file.open("wb") as out:
            for chunk in answer.iter_raw():
                hashed.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        took = time.perf_counter() - begin
    assert digest == f"sha256:{hashed.hexdigest()}"
    return size / took / _MEGABYTE


@contextmanager
def _served(blob: Path) -> Iterator[str]:
    server = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(
        target=_serve, args=(server, blob), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        process.kill()
        process.join()
        server.close()


def _serve(server: socket.socket, blob: Path) -> None:
    """Answer every connection's requests with the blob, one connection at a time."""
    size = blob.stat().st_size
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode()
    while True:
        connection, _ = server.accept()
        with connection, blob.open("rb") as stream:
            connection.recv(1 << 16)
            connection.sendall(head)
            connection.sendfile(stream)
