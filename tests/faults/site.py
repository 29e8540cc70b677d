"""One fleet and one device in real processes, with links between them that a test can harm.

After each fault `settled` asks for what must hold: the device runs a working release, the store
lost nothing of what it was sent, and nothing is half installed.
"""

import contextlib
import itertools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.messages import MqttAccess
from cloud_sync.release import Release
from edge_agent.store import ReleaseStore
from edge_agent.update.journal import DeviceState, read_state
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until
from tests.sim.proxy import Proxy

DEVICE, MODEL = "cam-1", "toy"
PATIENCE_S = 240.0
# A busy machine's latency is no fault of a release.
POLICY = """
soak_s = 1
[[waves]]
percent = 100
[gates]
latency_slack_ms = 10000
[trial]
soak_s = 1
min_inferred = 10
timeout_s = 600
latency_slack_ms = 10000
"""
_PHASES = ("resolving", "downloading", "verifying", "testing", "trial", "committed")
# A test has no time for the pauses that spare a real network.
AGENT = """
import sys
from cloud_sync import mqtt_session, outbox, patience
from edge_agent import link, sample_upload
link.POLL_ALONE_S, link.POLL_CONNECTED_S = 0.5, 2.0
link.ACK_PATIENCE_S, link.HTTP_PAUSE_S = 2.0, (0.2, 1.0)
outbox.RESEND_AFTER_S = 3.0
mqtt_session.RECONNECT_S = (0.2, 1.0)
sample_upload.PAUSE_S, sample_upload.LOOK_S = (0.2, 1.0), 0.5
from edgeml.cli import main
sys.argv[0] = "edgeml"
sys.exit(main())
"""


class Site(Loop):
    """See the module; `http` and `mqtt` are the device's links.

    Args:
        folder: where everything goes.
        data: the device's data folder, where it is to be on another disk.
        broker: options of `edgeml fleet up` that name another broker, and its port.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data: Path | None = None,
        broker: tuple[tuple[str, ...], int] | None = None,
    ) -> None:
        super().__init__(folder)
        options, mqtt_port = broker or (("--mqtt-port", str(self.ports[2])), self.ports[2])
        self._broker = options
        self.data = data or folder / DEVICE
        self.http = Proxy(self.ports[1])
        self.mqtt = Proxy(mqtt_port)
        self._versions = (f"1.0.{patch}" for patch in itertools.count())
        self.releases: dict[str, Release] = {}  # that were pushed, by version
        self.environment: Mapping[str, str] | None = None
        self.inside: tuple[str, ...] = ()  # what the agent is run through

    def start_fleet(self) -> None:
        port, device_port, _ = map(str, self.ports)
        self._start(
            "fleet",
            *("fleet", "up", "--data", str(self.folder / "fleet"), "--port", port),
            *("--device-port", device_port, *self._broker),
        )
        until("the fleet", self._answers)

    def enroll(self, device: str = DEVICE) -> None:
        """Enrol the device through its links and give it pictures to look at."""
        token = self.client.enroll(device, {}, 600)["token"]
        done = self.run(
            *("agent", "enroll", "--device", device, "--token", token),
            *("--fleet", f"http://127.0.0.1:{self.http.port}", "--data", str(self.data)),
        )
        assert done.returncode == 0, done.stderr
        file = self.data / "identity" / "mqtt.json"
        access = msgspec.json.decode(file.read_bytes(), type=MqttAccess)
        url = f"mqtt://127.0.0.1:{self.mqtt.port}"
        file.write_bytes(msgspec.json.encode(msgspec.structs.replace(access, url=url)))
        self.configure(device)

    def configure(self, device: str = DEVICE, **more: object) -> None:
        """Have the device look at pictures, with more of a configuration."""
        uri = "images://" + str(self.folder / "images")
        source = {"name": "belt", "uri": uri, "model": MODEL, "fps": 20.0, "loop": True}
        self.client.configure(device, {"sources": [source], "telemetry_every_s": 0.5, **more})

    def start_agent(self, device: str = DEVICE) -> None:
        config = str(self.data / "agent.toml")
        with (self.folder / f"{device}.log").open("ab") as log:
            self._children[device] = subprocess.Popen(
                [*self.inside, sys.executable, "-c", AGENT, "agent", "run", "--config", config],
                stdout=log,
                stderr=log,
                env=dict(self.environment) if self.environment else None,
            )

    def status(self, name: str) -> int | None:
        """A process's exit status; None while it runs."""
        return self._children[name].poll()

    def revive(self) -> None:
        """Start what a test left dead, so that the next one stands on its own."""
        self.environment, self.inside = None, ()
        for name, start in (("fleet", self.start_fleet), (DEVICE, self.start_agent)):
            if name not in self._children or self.status(name) is not None:
                start()

    def restart_agent(self) -> None:
        """`kill -9`, and start it again."""
        self.kill(DEVICE)
        self.start_agent()

    def begin(self) -> None:
        """Bring everything up, with two releases committed: one runs, one is the previous.

        So the next one leaves a release to collect.
        """
        self.start_fleet()
        self.enroll()
        self.start_agent()
        self.settled()
        self.settled()

    def push(self, ballast: int = 0) -> str:
        """Give the fleet a new release; returns its version."""
        version = next(self._versions)
        seed = int(version.rpartition(".")[2])
        folder = self.folder / "releases" / version
        layout, made = make_release(folder, version, seed=seed, ballast=ballast)
        self.releases[version] = made
        self.client.push(layout.folder)
        return version

    def roll_out(self, version: str, limits: str = "") -> str:
        return str(self.client.create_rollout(MODEL, version, policy=POLICY + limits)["id"])

    def update(self, ballast: int = 0) -> "Update":
        """Push a new release and want it on the device."""
        version = self.push(ballast)
        return Update(self, version, self.roll_out(version))

    def settled(self, update: "Update | None" = None) -> None:
        """With the fault gone: the update ends, or one that is asked for anew does.

        Then the device runs what was wanted, the store has all that was sent, and nothing is
        half installed.
        """
        update = update or self.update()
        if not update.completed():
            update = Update(self, update.version, self.roll_out(update.version))
            assert update.completed(), (update.found, self.log(DEVICE)[-4000:])
        until("results of the release", lambda: self.answers(update.version), PATIENCE_S)
        self.assert_whole()
        self.assert_nothing_lost()

    def answers(self, version: str) -> bool:
        """Whether the newest result is of a version, and is newer than the last that was seen."""
        path = self.data / "results.jsonl"
        if not path.exists():
            return False
        *_, tail = [b"", *path.read_bytes()[-4096:].split(b"\n")[:-1]]
        with contextlib.suppress(ValueError):
            return bool(json.loads(tail)["release_version"] == version)
        return False

    def goes_on(self, version: str) -> None:
        """Wait for more results, all of one version."""
        self.goes_on_in({version})

    def goes_on_in(self, versions: set[str]) -> None:
        """Wait for more results, all of one of these versions."""
        path = self.data / "results.jsonl"
        size = path.stat().st_size if path.exists() else 0
        until(f"more results of {versions}", lambda: path.stat().st_size > size + 2000, PATIENCE_S)
        with path.open("rb") as stream:
            stream.seek(size)
            lines = stream.read().split(b"\n")[1:-1]
        assert {json.loads(line)["release_version"] for line in lines} <= versions

    @property
    def state(self) -> DeviceState:
        """The device's journal."""
        return read_state(self.data / "state.json")

    @property
    def version(self) -> str:
        """The version that the device runs."""
        running = self.state.models[MODEL].running
        assert running is not None
        return str(running.release_version)

    def assert_whole(self) -> None:
        """What runs is there byte for byte, and nothing else lies about."""

        def swept() -> bool:
            blobs = self.data / "releases" / "blobs" / "sha256"
            return not [file for file in blobs.iterdir() if file.name.startswith(".")]

        until("no half of a download", swept)
        running = self.state.models[MODEL].running
        assert running is not None
        store = ReleaseStore(self.data / "releases")
        for digest in store.needed(store.variant(running.release, running.variant)):
            store.blobs.verify(digest)

    def assert_nothing_lost(self) -> None:
        """Every number that the outbox gave is in the store once, and none is a gap."""
        box = self.data / "outbox.db"

        def given() -> int:
            with contextlib.closing(sqlite3.connect(box, timeout=30)) as database:
                [[value]] = database.execute("SELECT value FROM meta WHERE key = 'next'")
            return int(value) - 1

        last = given()
        assert last > 0
        until("all records in the store", lambda: self.through() >= last, PATIENCE_S)
        with self.database() as database:
            rows = database.execute(
                "SELECT seq, kind FROM records WHERE device = ? AND seq <= ?", [DEVICE, last]
            ).fetchall()
        assert sorted(seq for seq, _ in rows) == list(range(1, last + 1))
        assert "gap" not in {kind for _, kind in rows}

    def through(self) -> int:
        """Up to where the store has everything of the device's only stream."""
        with self.database() as database:
            rows = database.execute("SELECT through FROM streams").fetchall()
        assert len(rows) <= 1
        return int(rows[0][0]) if rows else 0

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The store, read beside the fleet."""
        path = self.folder / "fleet" / "fleet.db"
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as database:
            yield database

    def close(self) -> None:
        super().close()
        self.http.close()
        self.mqtt.close()


class Update:
    """A rollout to the device."""

    def __init__(self, site: Site, version: str, rollout: str) -> None:
        self._site = site
        self.version = version
        self._rollout = rollout

    @property
    def found(self) -> Any:
        """The rollout, as the fleet tells it."""
        return self._site.client.rollout(self._rollout)

    @property
    def phase(self) -> str:
        """Where the device stands."""
        return self._site.phases(self._rollout).get(DEVICE, "")

    def reached(self, phase: str) -> None:
        """Wait until the device has come so far, or further: a phase may be over in no time."""
        enough = _PHASES[_PHASES.index(phase) :]
        until(f"the update to be {phase}", lambda: self.phase in enough, PATIENCE_S)

    def completed(self) -> bool:
        """Wait for the rollout's end; whether it was the one that was wanted.

        What the device refused for what came on the way is tried again, as an operator would.
        """

        def ended() -> Any:
            found = self.found
            if found["waits_for"] == "devices" and self.phase == "refused":
                self._site.client.retry(self._rollout)
                return None
            return found if found["status"] not in {"running", "paused"} else None

        found = until(f"the rollout {self._rollout} to end", ended, PATIENCE_S)
        return bool(found["status"] == "completed")


def every(what: str, strike: Callable[[], object], times: int, site: Site) -> None:
    """Let a fault strike again and again, each time when something has passed since."""
    for _ in range(times):
        before = site.http.passed + site.mqtt.passed
        until(what, lambda b=before: site.http.passed + site.mqtt.passed > b, PATIENCE_S)  # type: ignore[misc]
        strike()
