"""The whole loop in real processes: a fleet and agents, started and killed as a test likes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fleet.client import FleetClient

DEADLINE_S = 150.0
# A busy machine's latency is no fault of a release.
POLICY = """
soak_s = 1
[[waves]]
count = 1
[[waves]]
percent = 100
[gates]
latency_slack_ms = 10000
[trial]
soak_s = 2
min_inferred = 10
timeout_s = 60
latency_slack_ms = 10000
"""


def until(what: str, ready: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Poll until something is true, and fail with its name when it never is."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


class Loop:
    """A fleet in a folder; `close` leaves nothing running.

    Args:
        folder: where everything goes.
        agent_python: the Python that the agents run in.
    """

    def __init__(self, folder: Path, agent_python: str = sys.executable) -> None:
        self.folder = folder
        self._agent_python = agent_python
        self.ports = [_free_port() for _ in range(3)]
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._client: FleetClient | None = None
        self._images()

    @property
    def client(self) -> FleetClient:
        if self._client is None:
            token = (self.folder / "fleet" / "operator.token").read_text().strip()
            self._client = FleetClient(f"http://127.0.0.1:{self.ports[0]}", token)
        return self._client

    def start_fleet(self) -> None:
        port, device_port, mqtt_port = map(str, self.ports)
        self._start(
            "fleet",
            *("fleet", "up", "--data", str(self.folder / "fleet"), "--port", port),
            *("--device-port", device_port, "--mqtt-port", mqtt_port),
        )
        until("the fleet", self._answers)

    def enroll(self, device: str) -> None:
        token = self.client.enroll(device, {"site": "test"}, 600)["token"]
        done = self.run(
            "agent",
            "enroll",
            *("--device", device, "--fleet", f"http://127.0.0.1:{self.ports[1]}"),
            *("--token", token, "--data", str(self.folder / device)),
        )
        assert done.returncode == 0, done.stderr
        uri = "images://" + str(self.folder / "images")
        source = {"name": "pictures", "uri": uri, "model": "toy", "fps": 20.0, "loop": True}
        self.client.configure(device, {"sources": [source], "telemetry_every_s": 1.0})

    def start_agent(self, device: str) -> None:
        self._start(device, "agent", "run", "--config", str(self.folder / device / "agent.toml"))

    def kill(self, name: str) -> None:
        """`kill -9`, as a power cut would."""
        child = self._children.pop(name)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    def is_running(self, name: str) -> bool:
        """Whether a process that was started has not ended by itself."""
        return self._children[name].poll() is None

    def bury(self, name: str) -> None:
        """Wait for a process that ends by itself."""
        self._children.pop(name).wait(60)

    def stop(self, name: str) -> int:
        """SIGTERM, and the exit code."""
        child = self._children.pop(name)
        child.terminate()
        return child.wait(20)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._python(arguments), "-m", "edgeml.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def roll_out(self, version: str) -> str:
        rollout = self.client.create_rollout("toy", version, policy=POLICY)
        return rollout["id"]

    def phases(self, rollout: str) -> dict[str, str]:
        return {d["device"]: str(d["phase"]) for d in self.client.rollout(rollout)["devices"]}

    def finished(self, rollout: str, deadline_s: float = DEADLINE_S) -> Any:
        def ended() -> Any:
            found = self.client.rollout(rollout)
            return found if found["status"] not in {"running", "paused"} else None

        return until(f"the rollout {rollout} to end", ended, deadline_s)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def results(self, device: str) -> list[dict[str, Any]]:
        path = self.folder / device / "results.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        for name in reversed(tuple(self._children)):
            child = self._children.pop(name)
            child.kill()
            child.wait()

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                [self._python(arguments), "-m", "edgeml.cli", *arguments], stdout=log, stderr=log
            )

    def _python(self, arguments: tuple[str, ...]) -> str:
        return self._agent_python if arguments[0] == "agent" else sys.executable

    def _answers(self) -> bool:
        status = self._children["fleet"].poll()
        assert status is None, f"it ended with {status}: {self.log('fleet')}"
        try:
            return self.client.health()["status"] != ""
        except Exception:  # noqa: BLE001 -- whatever it is, it does not answer yet
            return False

    def _images(self) -> None:
        images = self.folder / "images"
        images.mkdir()
        rng = np.random.default_rng(5)
        for index in range(20):
            picture = rng.integers(0, 256, (8, 8, 3), np.uint8)
            cv2.imwrite(str(images / f"{index:03}.png"), picture)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
