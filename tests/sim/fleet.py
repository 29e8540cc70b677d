"""A fleet of one class: what a device talks to, over real HTTP, with the real signatures.

    with SimFleet(folder) as fleet:
        config = fleet.enroll("cam-1", data)           # a real enrolment, writes agent.toml
        release = fleet.publish(layout)                # a release's blobs
        fleet.want("cam-1", {"toy": fleet.desired(release)}, configuration)
        fleet.device("cam-1").reported                 # what its last hello said
        fleet.device("cam-1").states("toy")            # what it recorded, acknowledged by us

Faults are assigned: `fleet.wrong[digest] = b"..."` serves other bytes, `fleet.cut_after[digest]
= 100` drops the connection once, `fleet.pace_s = 0.1` slows every chunk, `fleet.acknowledges =
False` loses acks, `fleet.stop()` takes the fleet away and `fleet.start()` brings it back on
the same port.
"""

import asyncio
import datetime as dt
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from cloud_sync.commands import Command, CommandResult
from cloud_sync.device_api import COMMANDS_HEADER
from cloud_sync.evidence import Evidence
from cloud_sync.messages import (
    Ack,
    Batch,
    Configuration,
    DesiredModel,
    DesiredState,
    Enrolled,
    EnrollRequest,
    Hello,
    MqttAccess,
    Phase,
    Record,
    RecordKind,
    ReportedModel,
    ReportedState,
    StateRecord,
    TrialPolicy,
    Window,
    decode,
    encode,
)
from cloud_sync.ranges import runs
from cloud_sync.release import Blobs, Layout, Release, Variant
from cloud_sync.trust import PayloadType, PublicKey, generate, key_id, open_envelope, sign
from cloud_sync.trust.device_token import SCHEME, check_token, claimed_device, make_challenge
from cloud_sync.trust.identity import issue, make_ca, read_request
from cloud_sync.trust.keys import public_pem
from cloud_sync.trust.messages import SignedTime, TimeRequest
from edge_agent.trust.identity import enroll_device
from edgeml.errors import EdgemlError, TrustError

NOBODY = "mqtt://127.0.0.1:9"
CHUNK = 1 << 10
QUICK_TRIAL = TrialPolicy(soak_s=0.2, timeout_s=30.0, min_inferred=25, latency_slack_ms=1000.0)


class SimDevice:
    """What the fleet knows of one device."""

    def __init__(self, name: str, key: PublicKey) -> None:
        self.name = name
        self.key = key
        self.hellos: list[Hello] = []
        self.records: dict[tuple[str, int], Record] = {}
        self.wanted: DesiredState | None = None
        self.commands: list[bytes] = []

    @property
    def reported(self) -> ReportedState:
        """What the last hello said."""
        return self.hellos[-1].reported if self.hellos else ReportedState()

    def of(self, kind: RecordKind) -> list[msgspec.Raw]:
        """The bodies of the records of one kind, in order of their numbers."""
        return [r.body for _, r in sorted(self.records.items()) if r.kind == kind]

    def states(self, model: str) -> list[ReportedModel]:
        """Every state of a model that was recorded."""
        found = [msgspec.json.decode(b, type=StateRecord) for b in self.of(RecordKind.STATE)]
        return [record.state for record in found if record.model == model]

    def phase(self, model: str, version: str) -> Phase | None:
        """Where the update to a version stands, by the newest record."""
        found = [state for state in self.states(model) if state.release_version == version]
        return found[-1].phase if found else None

    def windows(self) -> list[Window]:
        """Every window of telemetry."""
        return [msgspec.json.decode(b, type=Window) for b in self.of(RecordKind.TELEMETRY)]

    def results(self) -> list[CommandResult]:
        """Every answer to a command."""
        return [msgspec.json.decode(b, type=CommandResult) for b in self.of(RecordKind.RESULT)]

    def evidence(self) -> list[Evidence]:
        """Every evidence."""
        return [msgspec.json.decode(b, type=Evidence) for b in self.of(RecordKind.EVIDENCE)]


class SimFleet:
    """See the module."""

    def __init__(self, folder: Path, *, broker: str = NOBODY) -> None:
        self.blobs = Blobs(folder)
        self.broker = broker
        self.director = generate()
        self.root = ""
        self.devices: dict[str, SimDevice] = {}
        self.wrong: dict[str, bytes] = {}
        self.cut_after: dict[str, int] = {}
        self.pace_s = 0.0
        self.acknowledges = True
        self.requests: list[str] = []
        self._ca_key = generate()
        self._ca = make_ca(self._ca_key, dt.datetime.now(dt.UTC))
        self._secret = b"a secret of this simulator"
        self._counter = 0
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "SimFleet":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app(),
            log_level="critical",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the simulated fleet did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        """Go away."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(10)
        self._server = self._thread = None

    def device(self, name: str) -> SimDevice:
        """An enrolled device."""
        return self.devices[name]

    def enroll(self, name: str, data: Path) -> Path:
        """Enrol a device over HTTP and return its `agent.toml`."""
        return enroll_device(self.url, name, f"{name}.token", data)

    def publish(self, layout: Layout) -> Release:
        """Take a layout's only release and all its blobs."""
        for digest in layout.blobs.all():
            self.blobs.put_file(layout.blobs.path(digest))
        [release] = layout.releases()
        return release

    @staticmethod
    def desired(
        release: Release,
        *,
        attempt: int = 1,
        trial: TrialPolicy = QUICK_TRIAL,
        variant: Variant | None = None,
    ) -> DesiredModel:
        """That a device shall run this release."""
        return DesiredModel(
            release=release.digest,
            variant=(variant or release.variants[0]).digest,
            release_version=release.version,
            attempt=attempt,
            nonce=f"nonce-{attempt}",
            trial=trial,
        )

    def want(
        self,
        name: str,
        models: dict[str, DesiredModel],
        configuration: Configuration | None = None,
    ) -> DesiredState:
        """Give a device a new desired state; without a configuration it keeps its last."""
        self._counter += 1
        now = time.time()
        before = self.devices[name].wanted
        if configuration is None:
            configuration = before.configuration if before else Configuration()
        state = DesiredState(
            device=name,
            epoch=1,
            counter=self._counter,
            issued_at=now,
            expires_at=now + 3600,
            models=models,
            configuration=configuration,
        )
        self.devices[name].wanted = state
        return state

    def command(self, name: str, kind: str, *, expires_in_s: float = 60.0, **how: Any) -> bytes:
        """A signed command; put it into the device's `commands` or publish it."""
        self._counter += 1
        command = Command(
            device=name,
            id=f"command-{self._counter}",
            kind=kind,
            issued_at=time.time() + min(0.0, expires_in_s - 60.0),
            expires_at=time.time() + expires_in_s,
            **how,
        )
        return sign(encode(command), PayloadType.COMMAND, self.director)

    def signed(self, name: str) -> bytes | None:
        """The envelope of what a device shall be."""
        wanted = self.devices[name].wanted
        return sign(encode(wanted), PayloadType.DESIRED, self.director) if wanted else None

    def store(self, name: str, envelope: bytes) -> bytes:
        """Store a signed batch and return the signed ack."""
        device = self.devices[name]
        batch = decode(self._open(device, envelope, PayloadType.BATCH), Batch)
        for record in batch.records:
            device.records.setdefault((batch.stream, record.seq), record)
        stored = runs([seq for stream, seq in device.records if stream == batch.stream])
        through = stored[0][1] if stored and stored[0][0] == 1 else 0
        ack = Ack(
            device=name,
            stream=batch.stream,
            through=through,
            ranges=tuple(r for r in stored if r[0] > through),
            at=time.time(),
        )
        return sign(encode(ack), PayloadType.ACK, self.director)

    @staticmethod
    def _open(device: SimDevice, envelope: bytes, kind: PayloadType) -> bytes:
        return open_envelope(envelope, {key_id(device.key): device.key}, kind)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/device/v1/enroll", self._enroll, methods=["POST"]),
                Route("/device/v1/hello", self._known(self._hello), methods=["POST"]),
                Route("/device/v1/desired", self._known(self._desired)),
                Route("/device/v1/commands", self._known(self._commands)),
                Route("/device/v1/records", self._known(self._records), methods=["POST"]),
                Route("/device/v1/time", self._known(self._time), methods=["POST"]),
                Route("/device/v1/root/{director}", self._known(self._root)),
                Route("/v2/{model}/manifests/{digest}", self._known(self._blob)),
                Route("/v2/{model}/blobs/{digest}", self._known(self._blob)),
            ],
            exception_handlers={EdgemlError: _problem},
        )

    def _known(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            self.requests.append(f"{request.method} {request.url.path}")
            header = request.headers.get("authorization", "")
            now = time.time()
            try:
                name = claimed_device(header)
                key = self.devices[name].key
                request.state.device = check_token(header, key, self._secret, now)
            except (TrustError, KeyError):
                challenge = make_challenge(self._secret, now)
                return JSONResponse(
                    {"detail": "who are you?"},
                    401,
                    {"WWW-Authenticate": f'{SCHEME} challenge="{challenge}"'},
                )
            return await endpoint(request)

        return guarded

    async def _time(self, request: Request) -> Response:
        asked = decode(await request.body(), TimeRequest)
        told = SignedTime(device=request.state.device, nonce=asked.nonce, at=time.time())
        return Response(sign(encode(told), PayloadType.TIME, self.director))

    @staticmethod
    async def _root(_: Request) -> Response:
        return Response(status_code=204)

    async def _enroll(self, request: Request) -> Response:
        wanted = decode(await request.body(), EnrollRequest)
        name, key = read_request(wanted.csr)
        if wanted.token != f"{name}.token":
            raise TrustError("The token was refused.")
        self.devices[name] = SimDevice(name, key)
        now = dt.datetime.now(dt.UTC)
        return Response(
            encode(
                Enrolled(
                    device=name,
                    certificate=issue(name, key, self._ca, self._ca_key, now),
                    ca=self._ca,
                    director_key=public_pem(self.director.public_key()),
                    mqtt=MqttAccess(url=self.broker, username=name, password="p"),
                    root=self.root,
                )
            )
        )

    async def _hello(self, request: Request) -> Response:
        device = self.devices[request.state.device]
        payload = self._open(device, await request.body(), PayloadType.HELLO)
        device.hellos.append(decode(payload, Hello))
        answer = await self._desired(request)
        answer.headers[COMMANDS_HEADER] = str(len(device.commands))
        return answer

    async def _commands(self, request: Request) -> Response:
        waiting = self.devices[request.state.device].commands
        return Response(b"[" + b",".join(waiting) + b"]")

    async def _desired(self, request: Request) -> Response:
        envelope = self.signed(request.state.device)
        return Response(envelope) if envelope else Response(status_code=204)

    async def _records(self, request: Request) -> Response:
        ack = self.store(request.state.device, await request.body())
        return Response(ack) if self.acknowledges else Response(status_code=503)

    async def _blob(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        if not self.blobs.has(digest):
            return JSONResponse({"detail": "no such blob"}, 404)
        data = self.wrong.get(digest, self.blobs.path(digest).read_bytes())
        begin = 0
        wanted = request.headers.get("range", "")
        if wanted and request.headers.get("if-range") == f'"{digest}"':
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(data):
                return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
        headers = {"Content-Length": str(len(data) - begin)}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        part = data[begin : begin + self.cut_after.pop(digest, len(data))]
        return StreamingResponse(self._chunks(part), 206 if begin else 200, headers)

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        # Fewer bytes than the header says: uvicorn drops the connection, as a cut cable does.
        for begin in range(0, len(data), CHUNK):
            if self.pace_s:
                await asyncio.sleep(self.pace_s)
            yield data[begin : begin + CHUNK]


async def _problem(_request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 403 if isinstance(error, TrustError) else 400)
