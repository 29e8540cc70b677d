"""What the rollout is measured on: Mosquitto, the fleet over TLS, and the simulator, as processes.

with Site(folder) as site:
    site.push("1.0.0", 1_000_000)
    with site.simulator(1000) as devices:
        site.roll_out("1.0.0")
"""

import datetime as dt
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import psutil  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from benchmarks.fleet_servers import mosquitto
from cloud_sync.evidence import Verification
from cloud_sync.release import Layout, ReleaseBuilder
from edgeml.errors import RemoteError
from fleet.client import FleetClient
from fleet.keys import OPERATOR_TOKEN
from hardware.profiles import select

MODEL = "digits"
PATIENCE_S = 120.0
POLICY = """
soak_s = 0
[[waves]]
count = 4
[[waves]]
percent = 5
[[waves]]
percent = 25
[[waves]]
percent = 100
[trial]
soak_s = 0
min_inferred = 1
timeout_s = 600
latency_slack_ms = 10000
[gates]
latency_slack_ms = 10000
[limits]
in_flight = 100000
device_timeout_s = 36000
"""


class Site:
    """See the module; `close` leaves nothing running.

    Args:
        folder: where everything goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "tls.pem"
        self._stack = ExitStack()
        self._fleet: subprocess.Popen[bytes] | None = None
        make_certificate(self.certificate)
        self._environment = {**os.environ, "SSL_CERT_FILE": str(self.certificate)}
        self.broker_port = self._stack.enter_context(mosquitto(folder / "broker"))
        self.port, self.device_port = free_port(), free_port()
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        if self._fleet is not None:
            _end(self._fleet)
        self._stack.close()

    @property
    def devices_url(self) -> str:
        """The listener that devices talk to."""
        return f"https://127.0.0.1:{self.device_port}"

    def client(self) -> FleetClient:
        """A client of the API; it trusts what SSL_CERT_FILE names."""
        os.environ["SSL_CERT_FILE"] = str(self.certificate)
        token = (self.folder / "fleet" / OPERATOR_TOKEN).read_text().strip()
        return FleetClient(f"https://127.0.0.1:{self.port}", token)

    def rss_bytes(self) -> int:
        """The fleet's resident memory, its children's with it."""
        assert self._fleet is not None
        process = psutil.Process(self._fleet.pid)
        found = (process, *process.children(recursive=True))
        return sum(one.memory_info().rss for one in found)

    def cpu_s(self) -> dict[str, float]:
        """The processor time that each part of the fleet has taken, in seconds.

        `listeners` is the thread of the event loop, which speaks TLS and HTTP with devices and
        operators; `threads` all others of its process: ingest, the rollout controller, what asks
        the database, the bus's client; `openers` the processes that verify batches.
        """
        assert self._fleet is not None
        process = psutil.Process(self._fleet.pid)
        main = next(one for one in process.threads() if one.id == process.pid)
        listeners = float(main.user_time + main.system_time)
        return {
            "listeners": listeners,
            "threads": _busy_s(process) - listeners,
            "openers": sum(_busy_s(one) for one in process.children(recursive=True)),
        }

    def broker_cpu_s(self) -> float:
        """The processor time that Mosquitto has taken, in seconds."""
        ours = psutil.Process().children()
        return sum(_busy_s(one) for one in ours if one.name() == "mosquitto")

    def push(self, version: str, size: int) -> None:
        """Give the fleet a release with a variant of so many bytes for every CPU target."""
        builder = ReleaseBuilder(MODEL, version)
        for rank, profile in enumerate(select(["cpu"])):
            data = random.Random(f"{version} {profile.name}").randbytes(size)
            builder.add_variant(
                target=profile.name,
                rank=rank,
                requires=profile.requirements(),
                format="onnx",
                precision="int8",
                quantization="",
                verification=Verification.ARTIFACT_EXECUTED,
                files={"model": ("model.onnx", data)},
            )
        layout = Layout.create(self.folder / version)
        builder.write(layout)
        with self.client() as client:
            client.push(layout.folder)

    @contextmanager
    def simulator(self, devices: int, *more: str) -> Iterator["Running"]:
        """So many devices, all of them connected, in a process of their own."""
        with (self.folder / "simulator.log").open("wb") as log:
            command = [
                *(sys.executable, "-m", "edgeml.cli", "simulate", "--devices", str(devices)),
                *("--devices-url", self.devices_url, "--fleet", f"https://127.0.0.1:{self.port}"),
                *("--data", str(self.folder / "fleet"), "--ca", str(self.certificate)),
                *("--identities", str(self.folder / "simulated"), "--poll", "3600"),
                *("--telemetry", "0", "--fps", "1000", "--json", *more),
            ]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=self._environment
            )
            running = Running(process, self.folder / "simulator.log")
            try:
                running.wait_for(f"{devices} of {devices} connected")
                yield running
            finally:
                _end(process)

    def _start(self) -> None:
        with (self.folder / "fleet.log").open("wb") as log:
            self._fleet = subprocess.Popen(
                [
                    *(sys.executable, "-m", "edgeml.cli", "fleet", "up"),
                    *("--data", str(self.folder / "fleet"), "--port", str(self.port)),
                    *("--device-port", str(self.device_port)),
                    *("--broker", f"mqtt://127.0.0.1:{self.broker_port}"),
                    *("--tls-cert", str(self.certificate), "--tls-key", str(self.certificate)),
                ],
                stdout=log,
                stderr=log,
                env=self._environment,
            )

        def answers() -> bool:
            assert self._fleet is not None
            if self._fleet.poll() is not None:
                raise RemoteError("The fleet ended.", why=(self.folder / "fleet.log").read_text())
            try:
                with self.client() as client:
                    return client.health()["status"] != ""
            except (RemoteError, OSError):
                return False

        until("the fleet", answers, PATIENCE_S)


class Running:
    """A simulator that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    def wait_for(self, text: str, patience_s: float = 1800.0) -> None:
        """Wait until its progress says something.

        Raises:
            RemoteError: it ended before, or did not say it in time.
        """

        def said() -> bool:
            if self._process.poll() is not None:
                raise RemoteError("The simulator ended.", why=self._log.read_text()[-2000:])
            return text in self._log.read_text()

        until(text, said, patience_s)

    def end(self) -> dict[str, Any]:
        """End it; its summary."""
        self._process.send_signal(signal.SIGINT)
        out, _ = self._process.communicate(timeout=300)
        found: dict[str, Any] = json.loads(out)
        return found

    def cpu_s(self) -> float:
        """The processor time that it has taken, in seconds."""
        return _busy_s(psutil.Process(self._process.pid))


def make_certificate(path: Path) -> None:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgeml benchmark")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.touch(0o600)
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))


def until(what: str, ready: Callable[[], bool], patience_s: float) -> None:
    """Look again and again until something is so.

    Raises:
        RemoteError: it never was.
    """
    end = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > end:
            raise RemoteError(f"Waited in vain for {what}.")
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _busy_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
