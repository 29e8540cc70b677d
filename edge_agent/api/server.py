"""The local API as the agent starts it: a thread with its listener, its lanes and its routes."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import threading
from functools import partial
from pathlib import Path

from cloud_sync.messages import Window
from edge_agent.api.device import Device, FindPush, Sources
from edge_agent.api.guard import refusal
from edge_agent.api.http_server import HttpServer, Limits, Request, Response
from edge_agent.api.lanes import Lane, LaneFull
from edge_agent.api.options import Access, Address, ApiOptions, check
from edge_agent.api.routes import FIGURES, FRAMES, INFERENCE, PUSHES, Routes, problem
from edge_agent.api.totals import Totals
from edgeml.errors import DeviceError, TrustError, UserError

log = logging.getLogger(__name__)

START_S = 10.0
SOCKET_MODE = 0o660
BACKLOG = 64
_BUSY = Response(
    status=503,
    body=b'{"error":"Too many requests wait already. Ask again later."}',
    content_type="application/json",
    headers={"retry-after": "1"},
)


class LocalApi:
    """Serves the local API from `start` to `close`.

    Args:
        options: as given on the command line; checked at once.
        device: what is asked; `Workers` of the agent.
        name: of the device, shown to people.
        push: finds a source that takes frames from here.
        sources: says how the sources are.

    Raises:
        UserError, TrustError: see `edge_agent.api.options.check`.
    """

    def __init__(
        self,
        options: ApiOptions,
        workers: Device,
        *,
        device: str,
        push: FindPush | None = None,
        sources: Sources = dict,
        limits: Limits | None = None,
    ) -> None:
        self._access = check(options)
        self._limits = limits or Limits()
        self._totals = Totals()
        self._routes = Routes(workers, self._totals, name=device, push=push, sources=sources)
        self._names = frozenset({"localhost", socket.gethostname().lower(), device.lower()})
        # One thread infers, so that a model's frames and the API's requests take turns.
        self._lanes: dict[str, Lane[Response]] = {
            INFERENCE: Lane(INFERENCE, threads=1, waiting=16),
            FRAMES: Lane(FRAMES, threads=2, waiting=8),
            FIGURES: Lane(FIGURES, threads=1, waiting=8),
            # One picture is decoded at a time.
            PUSHES: Lane(PUSHES, threads=1, waiting=8),
        }
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self.address: Address = self._access.address

    def start(self) -> None:
        """Open the listener; `address` says where, with the port that 0 became.

        Raises:
            UserError: the address cannot be taken; it may be tried again.
            TrustError: the certificate or its key cannot be used.
        """
        tls = tls_of(self._access)
        self._socket = take(self._access.address)
        self._tls = tls
        self._failed = None
        self._started.clear()
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)
        if not self._access.address.path:
            port = self._socket.getsockname()[1]
            self.address = Address(host=self._access.address.host, port=port)
        self._thread.start()
        self._started.wait(START_S)
        if self._failed is not None:
            raise DeviceError("The local API did not start.", why=f"{self._failed}.")
        log.info("the local API listens on %s", self.address)

    def count(self, window: Window) -> None:
        """Count a telemetry window into what `/metrics` says."""
        self._totals.add(window)

    def close(self, timeout_s: float = 1.0) -> None:
        """Let every client go and end; what hangs in a driver is left to the process's end."""
        if self._thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(timeout_s)
        for lane in self._lanes.values():
            lane.close()
        for lane in self._lanes.values():
            lane.join(timeout_s)
        if self._access.address.path:
            Path(self._access.address.path).unlink(missing_ok=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._failed = error
            log.exception("the local API ended")
        finally:
            self._started.set()
            self._socket.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = HttpServer(self._check, self._answer, self._limits, tls=self._tls)
        await server.start(self._socket)
        self._started.set()
        await self._ended.wait()
        await server.close()

    def _check(self, request: Request) -> Response | None:
        said = refusal(
            request.method,
            request.path,
            request.headers,
            # No browser comes by a Unix socket, and over TLS the certificate names the device.
            names=None if self._access.address.path or self._access.certificate else self._names,
            token=self._access.token,
        )
        if said is None:
            return None
        status, sentence = said
        answer = problem(status, sentence)
        if status != 401:  # noqa: PLR2004 -- unauthorized
            return answer
        return Response(
            status=status,
            body=answer.body,
            content_type=answer.content_type,
            headers={"www-authenticate": 'Basic realm="edgeml agent: the token is the password"'},
        )

    async def _answer(self, request: Request) -> Response:
        lane = self._lanes.get(self._routes.lane(request))
        try:
            if lane is None:
                return self._routes.answer(request)
            return await lane.run(partial(self._routes.answer, request))
        except LaneFull:
            return _BUSY
        except Exception:
            log.exception("a request could not be answered")
            return problem(500, "The agent failed on this request; its log says how.")


def take(address: Address) -> socket.socket:
    """Open a listening socket.

    Raises:
        UserError: it cannot be opened.
    """
    family = socket.AF_UNIX if address.path else _family(address.host)
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        if address.path:
            _remove_stale(Path(address.path))
            taken.bind(address.path)
            os.chmod(address.path, SOCKET_MODE)  # noqa: PTH101 -- nobody can connect before listen
        else:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((address.host, address.port))
        taken.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        taken.close()
        raise _cannot(address, error) from error
    taken.setblocking(False)
    return taken


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _remove_stale(path: Path) -> None:
    """Remove the socket that an agent left which was killed; one that answers stays."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _cannot(address: Address, error: Exception) -> UserError:
    number = getattr(error, "errno", None) or 0
    folder = Path(address.path).parent
    other = "Name another address with --api."
    or_other = "or name another address with --api."
    no_right = (
        f"Let this user write to {folder}, {or_other}"
        if address.path
        else f"Name a port from 1024 on, {or_other}"
    )
    why, fix = {
        errno.EADDRINUSE: ("Another program uses it.", f"Stop that program, {or_other}"),
        errno.EACCES: ("This user may not use it.", no_right),
        errno.EPERM: ("This user may not use it.", no_right),
        errno.EROFS: ("Its folder cannot be written to.", other),
        errno.EADDRNOTAVAIL: (
            "This machine has no such address.",
            f"See its addresses with `ip address`, {or_other}",
        ),
        errno.ENOENT: (f"The folder {folder} is not there.", f"Make the folder, {or_other}"),
        errno.ENOTDIR: (f"{folder} is no folder.", other),
    }.get(number, (f"{error}.", other))
    return UserError(f"The local API cannot listen on {address}.", why=why, fix=fix)


def tls_of(access: Access) -> ssl.SSLContext | None:
    """The TLS of a listener; None where it has no certificate.

    Raises:
        TrustError: the certificate or its key cannot be used.
    """
    if not access.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(access.certificate, access.key)
    except (OSError, ssl.SSLError) as error:
        raise TrustError(
            "The local API's certificate cannot be used.",
            why=f"{error}.",
            fix="Check --api-certificate and --api-key: PEM files that belong together.",
        ) from error
    return context
