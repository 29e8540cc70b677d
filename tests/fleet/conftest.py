"""A real fleet in a temporary folder, real uvicorn listeners, and a device made of real parts."""

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from cloud_sync.device_api import DeviceClient
from cloud_sync.device_api import enroll as enroll_over_http
from cloud_sync.evidence import Evidence, GateResult, Verdict, Verification
from cloud_sync.messages import (
    Ack,
    DesiredModel,
    DesiredState,
    Enrolled,
    EnrollRequest,
    Feature,
    Hello,
    Phase,
    RecordKind,
    ReportedModel,
    ReportedState,
    StateRecord,
    Window,
    decode,
    encode,
)
from cloud_sync.outbox import Outbox
from cloud_sync.release import Layout, Release, ReleaseBuilder, write_evidence
from cloud_sync.trust import PayloadType, PrivateKey, generate, key_id, open_envelope, sign
from cloud_sync.trust.identity import make_request
from cloud_sync.trust.keys import load_public
from fleet.access import Access
from fleet.client import FleetClient
from fleet.controller import Controller
from fleet.db import Database, upgrade
from fleet.device_app import device_app
from fleet.incarnation import HeadFile
from fleet.ingest import Ingest
from fleet.keys import load_or_create
from fleet.listeners import Listener, take
from fleet.operator_app import operator_app
from fleet.registry import Registry
from fleet.server import DEVICES, OPERATORS
from fleet.services import Caller, Services, enrollment, recovery
from fleet.services import reported as reports
from fleet.serving import lifespan, served
from fleet.trust import Repository
from hardware.capabilities import Capabilities, Cpu, RuntimeInfo
from hardware.requirements import Requirements, RuntimeRequirement
from tests.fleet import databases

# Fixtures and a hook, which pytest finds here.
backups = databases.backups
database_kind = databases.database_kind
new_database = databases.new_database
postgresql = databases.postgresql
pytest_generate_tests = databases.pytest_generate_tests

OPERATOR = Caller("operator", "a test")
VNNI = Capabilities(
    hardware_class="x86_64-avx512_vnni-2c",
    cpu=Cpu(model="test", cores=2, features=("avx2", "avx512_vnni")),
    memory_bytes=1 << 30,
    runtimes=(RuntimeInfo(name="onnxruntime", version="1.20.0"),),
)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def make_services(data: Path, clock: Callable[[], float] = time.time) -> Services:
    """A fleet's services on a folder, as `fleet up` makes them."""
    keys = load_or_create(data, dt.datetime.now(dt.UTC))
    database = Database(databases.database_url(data))
    databases.begin(database)
    upgrade(database)
    services = Services(
        database=database,
        keys=keys,
        registry=Registry(data / "registry"),
        head=HeadFile(data / "keys" / "head.json"),
        trust=Repository(data / "trust", clock),
        mqtt_url="mqtt://127.0.0.1:1883",
        console_url="http://127.0.0.1:8080",
        now=clock,
    )
    services.registry.prepare()
    recovery.check(services)
    return services


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(tmp_path: Path, clock: Clock, database_kind: str) -> Iterator[Services]:
    made = make_services(tmp_path / "fleet", clock)
    yield made
    made.database.close()


@dataclass
class Listening:
    """Both listeners on real sockets; `services` keep real time."""

    services: Services
    ingest: Ingest
    access: Access
    operators: str
    devices: str
    client: FleetClient


def listen(
    services: Services, make_access: Callable[[Services], Access] = Access
) -> tuple[Listening, Callable[[], None]]:
    """Serve both apps from a thread; returns them and what stops them."""
    ingest, access = Ingest(services), make_access(services)
    ingest.start()
    sockets = [take(Listener(name, "127.0.0.1", 0, "--port")) for name in ("one", "two")]
    up, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        ended = asyncio.Event()
        async with AsyncExitStack() as stack:
            apps = (operator_app(services, access), device_app(services, ingest))
            for app, taken, limits in zip(apps, sockets, (OPERATORS, DEVICES), strict=True):
                await stack.enter_async_context(lifespan(app))
                await stack.enter_async_context(served(app, taken, None, ended, limits))
            up.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(60)
    urls = [f"http://127.0.0.1:{taken.getsockname()[1]}" for taken in sockets]

    client = FleetClient(urls[0], services.keys.operator_token)

    def end() -> None:
        client.close()
        stop.set()
        thread.join()
        ingest.stop()

    return Listening(services, ingest, access, urls[0], urls[1], client), end


@pytest.fixture
def fleet(tmp_path: Path, database_kind: str) -> Iterator[Listening]:
    services = make_services(tmp_path / "fleet")
    listening, end = listen(services)
    yield listening
    end()
    services.database.close()


@dataclass
class Device:
    """An enrolled device: real keys, a real outbox, the real client."""

    device: str
    key: PrivateKey
    enrolled: Enrolled
    outbox: Outbox
    base_url: str = ""
    epoch: int = 0
    counter: int = 0
    accepted: str = ""
    capabilities: Capabilities = VNNI
    features: tuple[str, ...] = (str(Feature.PREPARE),)
    models: dict[str, ReportedModel] = field(default_factory=dict)
    clients: list[DeviceClient] = field(default_factory=list)

    def hello(self) -> Hello:
        return Hello(
            device=self.device,
            agent_version="0.1.0",
            boot_id="boot-1",
            stream=self.outbox.stream,
            capabilities=self.capabilities,
            reported=ReportedState(
                desired_epoch=self.epoch, desired_counter=self.counter, models=self.models
            ),
            accepted=self.accepted,
            features=self.features,
        )

    def take(self, envelope: bytes | None) -> DesiredState | None:
        """Accept a desired state, as an agent does; returns it."""
        if envelope is None:
            return None
        director = load_public(self.enrolled.director_key)
        payload = open_envelope(envelope, {key_id(director): director}, PayloadType.DESIRED)
        state = decode(payload, DesiredState)
        assert (state.epoch, state.counter) >= (self.epoch, self.counter)
        self.epoch, self.counter, self.accepted = state.epoch, state.counter, envelope.decode()
        return state

    def client(self) -> DeviceClient:
        if not self.clients:
            self.clients.append(DeviceClient(self.base_url, self.device, self.key))
        return self.clients[0]

    def close(self) -> None:
        self.outbox.close()
        for client in self.clients:
            client.close()

    def open_ack(self, envelope: bytes) -> Ack:
        director = load_public(self.enrolled.director_key)
        payload = open_envelope(envelope, {key_id(director): director}, PayloadType.ACK)
        return decode(payload, Ack)

    def report(self, model: str, state: ReportedModel) -> None:
        """Put a state into the outbox."""
        self.models[model] = state
        record = StateRecord(
            model=model, state=state, desired_epoch=self.epoch, desired_counter=self.counter
        )
        self.outbox.append(RecordKind.STATE, record)


def make_window(number: int = 1, model: str = "digits") -> Window:
    return Window(
        model=model,
        source="belt",
        release="sha256:" + "a" * 64,
        variant="sha256:" + "b" * 64,
        seconds=2.0,
        accepted=number,
        replaced=0,
        inferred=number,
    )


def gate(result: Verdict = Verdict.PASS, name: str = "golden") -> GateResult:
    return GateResult(name=name, result=result, reason="as measured")


def make_evidence(device: str, wanted: Any, *gates: GateResult) -> Evidence:
    return Evidence(
        stage="trial",
        model="digits",
        release=wanted.release,
        variant=wanted.variant,
        verification=Verification.DEVICE_EXECUTED,
        device=device,
        nonce=wanted.nonce,
        gates=gates or (gate(),),
    )


def reported(wanted: Any, phase: Phase, running: Any = None, reason: str = "") -> ReportedModel:
    """What an agent says of a wanted release in some phase."""
    return ReportedModel(
        phase=phase,
        running_release=running.release if running else "",
        running_variant=running.variant if running else "",
        running_version=running.release_version if running else "",
        release=wanted.release,
        variant=wanted.variant,
        release_version=wanted.release_version,
        rollout=wanted.rollout,
        attempt=wanted.attempt,
        reason=reason,
    )


def enroll_locally(
    services: Services, tmp_path: Path, device: str = "cam-1", **labels: str
) -> Device:
    """Enrol a device without HTTP, and let it say hello once."""
    token = enrollment.create_token(services, OPERATOR, device, labels)["token"]
    key = generate()
    request = EnrollRequest(token=token, csr=make_request(device, key))
    made = Device(
        device=device,
        key=key,
        enrolled=enrollment.enroll(services, request),
        outbox=Outbox(tmp_path / f"{device}.outbox", device, "boot-1"),
    )
    made.take(reports.hello(services, device, sign(encode(made.hello()), PayloadType.HELLO, key)))
    return made


@pytest.fixture
def make_device(fleet: Listening, tmp_path: Path) -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def make(device: str = "cam-1", **labels: str) -> Device:
        token = fleet.client.enroll(device, labels, 60.0)["token"]
        key = generate()
        request = EnrollRequest(token=token, csr=make_request(device, key))
        made.append(
            Device(
                device=device,
                key=key,
                enrolled=enroll_over_http(fleet.devices, request),
                outbox=Outbox(tmp_path / f"{device}.outbox", device, "boot-1"),
                base_url=fleet.devices,
            )
        )
        return made[-1]

    yield make
    for device in made:
        device.close()


def write_release(folder: Path, version: str = "1.0.0", model: bytes = b"weights") -> Release:
    """A small release with two variants and evidence, in a layout."""
    builder = ReleaseBuilder("digits", version)
    runtimes = (RuntimeRequirement(name="onnxruntime", versions=">=1.17"),)
    for rank, (target, precision, features) in enumerate(
        (("cpu-x86-64-vnni", "int8", ("avx512_vnni",)), ("cpu-x86-64", "float32", ("avx2",)))
    ):
        builder.add_variant(
            target=target,
            rank=rank,
            requires=Requirements(cpu_features=features, runtimes=runtimes),
            format="onnx",
            precision=precision,
            quantization="",
            verification=Verification.ARTIFACT_EXECUTED,
            files={
                "model": ("model.onnx", model + precision.encode()),
                "pipeline": ("pipeline.toml", b"version = 1\n"),
            },
        )
    layout = Layout.create(folder)
    release = builder.write(layout)
    record = Evidence(
        stage="convert",
        model="digits",
        release=release.digest,
        variant=release.variants[0].digest,
        verification=Verification.ARTIFACT_EXECUTED,
    )
    write_evidence(layout, release, [record])
    return release


@pytest.fixture
def release_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "release-1.0.0"
    write_release(folder)
    return folder


@pytest.fixture
def controller(services: Services) -> Controller:
    return Controller(services)


@pytest.fixture
def http(fleet: Listening) -> Iterator[httpx.Client]:
    """A bare client of the operators' listener, with the token."""
    headers = {"Authorization": f"Bearer {fleet.services.keys.operator_token}"}
    with httpx.Client(base_url=fleet.operators, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def window() -> Callable[..., Window]:
    return make_window


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A fleet that the examples of a property share."""
    services = make_services(tmp_path_factory.mktemp("fleet"))
    listening, end = listen(services)
    yield listening
    end()
    services.database.close()


@pytest.fixture(scope="module")
def shared_device(
    shared_fleet: Listening, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Device]:
    made = enroll_locally(shared_fleet.services, tmp_path_factory.mktemp("device"))
    made.base_url = shared_fleet.devices
    yield made
    made.close()


@pytest.fixture
def evidence() -> Callable[..., Evidence]:
    return make_evidence


@pytest.fixture
def operator() -> Caller:
    return OPERATOR


@pytest.fixture
def enroll(services: Services) -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def make(services: Services, folder: Path, device: str = "cam-1", **labels: str) -> Device:
        made.append(enroll_locally(services, folder, device, **labels))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture
def wanted() -> DesiredModel:
    return DesiredModel(
        release="sha256:" + "a" * 64,
        variant="sha256:" + "b" * 64,
        release_version="1.0.0",
        nonce="nonce-1",
    )


@pytest.fixture
def make(database_kind: str) -> Callable[..., Services]:
    return make_services


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The makers above, for tests that speak for devices."""
    return SimpleNamespace(
        evidence=make_evidence,
        reported=reported,
        gate=gate,
        window=make_window,
        write_release=write_release,
    )


@pytest.fixture
def listening() -> Callable[[Services], tuple[Listening, Callable[[], None]]]:
    """Serve a fleet's services on real listeners; gives what stops them, too."""
    return listen
