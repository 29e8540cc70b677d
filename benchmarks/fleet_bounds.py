"""What a rollout must cost at least, each part measured by itself: processor seconds a device.

Nothing here is the fleet's: TLS is OpenSSL's over a socket pair, a signature is `cryptography`'s,
a message is Mosquitto's between two bare clients, and TUF is python-tuf with the files at hand.
Both ends are counted, since both run on this machine.
"""

import asyncio
import hashlib
import os
import socket
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import msgspec
import psutil  # type: ignore[import-untyped]
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from benchmarks.fleet_servers import client_of, mosquitto
from benchmarks.fleet_site import make_certificate
from cloud_sync.trust import generate
from cloud_sync.trust.releases import ReleaseTrust

ROUNDS = 5
_MESSAGES = 3000
_REQUESTS = 500


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Processor seconds of one of each."""

    handshake_s: float
    megabyte_s: float
    sign_s: float
    verify_s: float
    refresh_s: float
    message_s: float
    client_message_s: float
    request_s: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each a device needs for a rollout."""

    handshakes: float
    megabytes: float
    signatures: float
    verifications: float
    refreshes: float
    messages: float
    requests: float


def parts_s(costs: Costs, counts: Counts) -> dict[str, float]:
    """Processor seconds a device, by what takes them."""
    return {
        "handshakes": costs.handshake_s * counts.handshakes,
        "bytes": costs.megabyte_s * counts.megabytes,
        "signatures": costs.sign_s * counts.signatures + costs.verify_s * counts.verifications,
        "refresh": costs.refresh_s * counts.refreshes,
        "broker": costs.message_s * counts.messages,
    }


def beside_s(costs: Costs, counts: Counts) -> dict[str, float]:
    """Processor seconds a device of what the bound does without and no fleet can.

    The same requests between aiohttp and a bare Starlette application on uvicorn, as many
    messages of the bus in bare paho clients, where the bound has only the broker's share.
    """
    return {
        "http": costs.request_s * counts.requests,
        "bus clients": costs.client_message_s * counts.messages,
    }


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A release that a fleet has signed; `folder` has its TUF files."""

    folder: Path
    model: str
    version: str
    digest: str


def measure(message_bytes: int, signed: Signed) -> Costs:
    """Measure each; the median of some rounds.

    Args:
        message_bytes: the size of a message on the bus.
        signed: what the refresh looks for.
    """
    key, data = generate(), os.urandom(message_bytes)
    signature = key.sign(data)
    public = key.public_key()
    with tempfile.TemporaryDirectory() as name:
        handshake, megabyte = _tls(Path(name))
        message, client_message = _message(Path(name), data)
        return Costs(
            handshake_s=handshake,
            megabyte_s=megabyte,
            sign_s=_each(lambda: key.sign(data), 500),
            verify_s=_each(lambda: public.verify(signature, data), 500),
            refresh_s=_refresh(Path(name), signed),
            message_s=message,
            client_message_s=client_message,
            request_s=_request(data),
        )


def _each(work: Callable[[], object], times: int) -> float:
    """Processor seconds of one call."""
    work()
    rounds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - begun) / times)
    return statistics.median(rounds)


def _tls(folder: Path) -> tuple[float, float]:
    """A handshake, and a megabyte sent, received and hashed."""
    file = folder / "tls.pem"
    make_certificate(file)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    asking = ssl.create_default_context(cafile=str(file))
    data = memoryview(os.urandom(1_000_000))

    def connect(megabytes: int) -> None:
        a, b = socket.socketpair()

        def serve() -> None:
            with serving.wrap_socket(a, server_side=True) as end:
                for _ in range(megabytes):
                    end.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        with asking.wrap_socket(b, server_hostname="127.0.0.1") as end:
            hashed = hashlib.sha256()
            while chunk := end.recv(1 << 18):
                hashed.update(chunk)
        thread.join()

    handshake = _each(lambda: connect(0), 20)
    return handshake, max(0.0, (_each(lambda: connect(32), 1) - handshake) / 32)


class _Files(FetcherInterface):
    """Fetches from a folder, as if it were at hand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / url.removeprefix("file:/")
        if not path.exists():
            raise DownloadHTTPError("It is not there", 404)
        yield path.read_bytes()


def _refresh(folder: Path, signed: "Signed") -> float:
    """A device's first TUF refresh, with a release's check."""
    root = (signed.folder / "metadata" / "1.root.json").read_bytes()
    number = iter(range(1_000_000))

    def check() -> None:
        known = folder / "devices" / str(next(number))
        trust = ReleaseTrust(known, root, time.time, _Files(signed.folder), "file:")
        trust.check(signed.model, signed.version, signed.digest)

    return _each(check, 10)


def _request(data: bytes) -> float:
    """A request and its answer on a connection that stays: of both ends, which do nothing else."""

    async def answer(_request: Request) -> Response:
        return Response(data)

    async def ask(port: int) -> float:
        async with aiohttp.ClientSession() as session:
            for number in range(2 * _REQUESTS):
                if number == _REQUESTS:
                    begun = time.process_time()
                async with session.get(f"http://127.0.0.1:{port}/") as got:
                    await got.read()
        return (time.process_time() - begun) / _REQUESTS

    async def both() -> float:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            config = uvicorn.Config(
                Starlette(routes=[Route("/", answer)]), log_config=None, access_log=False
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[taken]))
            spent = await ask(int(taken.getsockname()[1]))
            server.should_exit = True
            await serving
            return spent

    return statistics.median(uvloop.run(both()) for _ in range(ROUNDS))


def _message(folder: Path, data: bytes) -> tuple[float, float]:
    """A message through Mosquitto, QoS 1 on both sides: what the broker takes, and the clients."""
    with mosquitto(folder / "broker") as port:
        [broker] = [
            one
            for one in psutil.process_iter(["name"])
            if one.info["name"] == "mosquitto" and _listens(one, port)
        ]
        came = threading.Semaphore(0)
        reader = client_of("reader", port, lambda _: came.release())
        reader.subscribe("bound/+", qos=1)
        publisher = client_of("publisher", port, lambda _: None)
        rounds, clients = [], []
        for _ in range(ROUNDS):
            begun, own = _busy(broker), time.process_time()
            for number in range(_MESSAGES // ROUNDS):
                publisher.publish(f"bound/{number}", data, qos=1)
            for _ in range(_MESSAGES // ROUNDS):
                came.acquire(timeout=60)
            rounds.append((_busy(broker) - begun) / (_MESSAGES // ROUNDS))
            clients.append((time.process_time() - own) / (_MESSAGES // ROUNDS))
        for client in (reader, publisher):
            client.disconnect()
            client.loop_stop()
    return statistics.median(rounds), statistics.median(clients)


def _busy(broker: psutil.Process) -> float:
    times = broker.cpu_times()
    return float(times.user + times.system)


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        found = process.net_connections(kind="inet")
    except psutil.NoSuchProcess:  # another's broker, which has just ended
        return False
    return any(one.laddr and one.laddr.port == port for one in found)
