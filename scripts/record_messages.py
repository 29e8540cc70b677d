"""Record what an agent and a fleet of this version say to each other: tests/data/wire/VERSION.

    .venv/bin/python scripts/record_messages.py

Done once for each version that is released. A real agent enrols, installs a release, infers and
answers a command, over Mosquitto and HTTP; what crosses is written down. The keys are made for the
recording and go with it, so that a later version can answer challenges in the device's name.
Names of this machine are replaced, and what held them is signed again by those same keys. The
tests that play it: tests/cloud_sync/test_versions.py and tests/fleet/test_versions.py.
"""

import base64
import json
import platform
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from cloud_sync.messages import TOPIC_ROOT
from cloud_sync.mqtt_session import MqttSession
from cloud_sync.trust import PayloadType, PrivateKey, sign
from cloud_sync.trust.keys import load_key, public_pem
from edgeml import __version__
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until
from tests.sim.mosquitto import Mosquitto

DEVICE = "cam-1"
OUT = Path(__file__).parents[1] / "tests" / "data" / "wire"
MAX_BODY = 64 << 10
MAX_OF_A_KIND = 6
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "server", "date", "host"})


class Tap(ThreadingHTTPServer):
    """Hands requests on to the fleet's device listener, and keeps what was asked and answered."""

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{target}", timeout=60)
        self.kept: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Tap

    def do_GET(self) -> None:
        self._pass("GET")

    def do_HEAD(self) -> None:
        self._pass("HEAD")

    def do_POST(self) -> None:
        self._pass("POST")

    def _pass(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        found = self.server.client.request(method, self.path, content=body, headers=headers)
        answer = found.content
        self.server.kept.append(
            {
                "method": method,
                "path": self.path,
                "body": body,
                "status": found.status_code,
                "type": found.headers.get("content-type", ""),
                "answer": answer if len(answer) <= MAX_BODY else b"",
            }
        )
        self.send_response(found.status_code)
        for name, value in found.headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if found.status_code not in {204, 304}:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        """Say nothing."""


class Recording(Loop):
    """A loop over Mosquitto, in which everything that crosses is kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.broker = Mosquitto(folder / "broker")
        self.messages: list[tuple[str, bytes]] = []
        self.tap = Tap(self.ports[1])
        self.listener = MqttSession(
            f"mqtt://127.0.0.1:{self.broker.port}",
            "recorder",
            on_message=lambda topic, payload: self.messages.append((topic, payload)),
            subscriptions=[f"{TOPIC_ROOT}/#"],
        )
        self.listener.start()
        until("the recorder", lambda: self.listener.connected)

    def start_fleet(self) -> None:
        """Start it, with Mosquitto for a broker."""
        port, device_port, _ = map(str, self.ports)
        self._start(
            "fleet",
            *("fleet", "up", "--data", str(self.folder / "fleet"), "--port", port),
            *("--device-port", device_port),
            *("--broker", f"mqtt://127.0.0.1:{self.broker.port}"),
        )
        until("the fleet", self._answers)

    def enroll(self, device: str) -> None:
        """Enrol a device through the tap."""
        self.ports[1], real = self.tap.server_port, self.ports[1]
        super().enroll(device)
        self.ports[1] = real

    def close(self) -> None:
        """Leave nothing running."""
        super().close()
        self.listener.close()
        self.broker.stop()
        self.tap.shutdown()


class Anonymous:
    """Replaces the names of this machine in payloads, and signs again what was signed."""

    def __init__(self, folder: Path, device: PrivateKey, director: PrivateKey) -> None:
        self._names = {
            str(folder): "/device",
            platform.node(): "device",
            platform.release(): "6.1.0",
            **dict.fromkeys(_cpu_names(), "a processor"),
        }
        self._device, self._director = device, director

    def text(self, data: bytes) -> bytes:
        """The same without those names."""
        for name, other in self._names.items():
            if name:
                data = data.replace(json.dumps(name)[1:-1].encode(), other.encode())
        return data

    def envelope(self, data: bytes) -> bytes:
        """An envelope whose payload has none of those names; what is none is text."""
        try:
            found = json.loads(data)
            kind = PayloadType(found["payloadType"])
            payload = base64.b64decode(found["payload"])
        except (ValueError, KeyError, TypeError):
            return self.text(data)
        up = kind in {PayloadType.HELLO, PayloadType.BATCH, PayloadType.RENEWAL}
        if kind is PayloadType.HELLO and (said := json.loads(payload)).get("accepted"):
            said["accepted"] = self.envelope(said["accepted"].encode()).decode()
            payload = json.dumps(said, separators=(",", ":")).encode()
        return sign(self.text(payload), kind, self._device if up else self._director)


def _cpu_names() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}


def record(loop: Recording) -> None:
    """Have the agent do all that it does."""
    loop.start_fleet()
    loop.enroll(DEVICE)
    loop.start_agent(DEVICE)
    layout, _ = make_release(loop.folder / "1.0.0", "1.0.0")
    loop.client.push(layout.folder)
    rollout = loop.roll_out("1.0.0")
    found = loop.finished(rollout)
    assert found["status"] == "completed", found["sentence"]
    loop.client.command(DEVICE, "diagnostics")
    until("the command's end", lambda: loop.client.commands(DEVICE)[0]["status"] == "done")
    time.sleep(3.0)  # some telemetry of the release
    loop.stop(DEVICE)


def write(loop: Recording, folder: Path) -> None:
    """Write what was kept, a bounded number of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    device = load_key(loop.folder / DEVICE / "identity" / "device.key")
    director = load_key(loop.folder / "fleet" / "keys" / "director.key")
    clean = Anonymous(loop.folder, device, director)
    facts = {
        "version": __version__,
        "device": DEVICE,
        "device_key": base64.b64encode(device.private_bytes_raw()).decode(),
        "director": public_pem(director.public_key()),
        "recorded_at": time.time(),
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    messages, of_kind = [], dict[str, int]()
    for topic, payload in loop.messages:
        name = topic.partition(f"{DEVICE}/")[2]
        of_kind[name] = of_kind.get(name, 0) + 1
        if name not in {"up/telemetry", "down/ack"} or of_kind[name] <= MAX_OF_A_KIND:
            messages.append({"topic": topic, "payload": clean.envelope(payload).decode()})
    _lines(folder / "mqtt.jsonl", messages)
    requests, of_kind = [], dict[str, int]()
    for one in loop.tap.kept:
        name = f"{one['method']} {one['path']} {one['status']}"
        of_kind[name] = of_kind.get(name, 0) + 1
        if of_kind[name] <= MAX_OF_A_KIND // 2:
            body, answer = clean.envelope(one["body"]), clean.envelope(one["answer"])
            if not _is_text(answer):
                answer = b""  # a file of the release
            requests.append({**one, "body": body.decode(), "answer": answer.decode()})
    _lines(folder / "http.jsonl", requests)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines(path: Path, objects: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))


def main() -> None:
    """Record, and say where it is."""
    folder = OUT / __version__
    with tempfile.TemporaryDirectory() as name:
        loop = Recording(Path(name))
        try:
            record(loop)
            write(loop, folder)
        finally:
            loop.close()
    print(f"Recorded in {folder}.")


if __name__ == "__main__":
    main()
