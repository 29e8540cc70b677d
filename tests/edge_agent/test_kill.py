"""`kill -9` at every step of an update: it comes up with a working release and completes."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from cloud_sync.messages import Phase
from cloud_sync.release import Release
from edge_agent.failpoints import NAMES
from edge_agent.store import ReleaseStore
from edge_agent.update.journal import read_state
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, MODEL, UNSURE, Scene
from tests.sim.fleet import SimFleet

GOOD = [
    *(f"{name}:kill" for name in NAMES),
    # The journal is written once a phase: each of these writes is one step of the update.
    *(f"journal-{side}:kill:{n}" for side in ("before", "after") for n in range(2, 7)),
    "downloaded-one:kill:2",
    "download-bytes:kill:2",
]
# Accepted and tried in one write, committed in the next.
CONFIGURING = [f"journal-{side}:kill:{n}" for side in ("before", "after") for n in (1, 2)]
BAD = ["tried:kill", "journal-before:kill:6", "journal-after:kill:6", "swap:kill:3"]


class Device:
    """A device that runs 1.0.0, in a folder of its own; the update is about to begin."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene = scene
        self.folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(scene.data, folder)
        self.config = folder / "agent.toml"
        self.config.write_text(self.config.read_text().replace(str(scene.data), str(folder)))
        scene.device.records.clear()
        scene.device.hellos.clear()

    @property
    def journal(self):  # noqa: ANN201 -- the journal's own type
        return read_state(self.folder / "state.json")

    @property
    def state(self):  # noqa: ANN201 -- the machine's own type
        return read_state(self.folder / "state.json").models[MODEL]

    def versions(self) -> list[str]:
        """The releases that answered, in the order of the frames."""
        results = self.folder / "results.jsonl"
        lines = results.read_text().splitlines() if results.exists() else []
        return [json.loads(line)["release_version"] for line in lines if line.endswith("}")]

    def assert_what_was_committed_can_run(self) -> None:
        running = self.state.running
        assert running is not None
        store = ReleaseStore(self.folder / "releases")
        for digest in store.needed(store.variant(running.release, running.variant)):
            store.blobs.verify(digest)


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A device on which 0.9.0 and then 1.0.0 were committed."""
    folder = tmp_path_factory.mktemp("kill")
    with SimFleet(folder / "registry") as fleet:
        scene = Scene(folder, fleet)
        with AgentProcess(scene.config) as agent:
            for seed, version in enumerate(["0.9.0", "1.0.0"], start=7):
                scene.want(scene.release(version, seed=seed))
                eventually(lambda v=version: scene.device.phase(MODEL, v) is Phase.COMMITTED)
            agent.stop()
        (scene.data / "results.jsonl").unlink()
        yield scene


@pytest.fixture(scope="module")
def good(committed: Scene) -> Release:
    return committed.release("1.1.0", seed=1)


@pytest.fixture(scope="module")
def bad(committed: Scene) -> Release:
    return committed.release("1.2.0", pipeline=UNSURE)


@pytest.mark.parametrize("failpoint", GOOD)
def test_an_update_survives_kill_9_at(
    failpoint: str, committed: Scene, good: Release, tmp_path: Path
) -> None:
    device = Device(committed, tmp_path / DEVICE)
    committed.want(good)
    with AgentProcess(device.config, failpoint) as agent:
        agent.wait_killed()
    device.assert_what_was_committed_can_run()
    seen = len(device.versions())
    with AgentProcess(device.config) as agent:
        eventually(lambda: device.state.phase is Phase.COMMITTED, what="the update's end")
        eventually(lambda: committed.device.phase(MODEL, "1.1.0") is Phase.COMMITTED)
        eventually(lambda: device.versions()[seen:], what="results")
        agent.stop()
    assert device.state.running.release_version == "1.1.0"
    assert device.state.previous.release_version == "1.0.0"
    after = device.versions()[seen:]
    assert set(after) <= {"1.0.0", "1.1.0"}
    assert after == sorted(after)  # never back and forth
    blobs = list((device.folder / "releases" / "blobs" / "sha256").iterdir())
    assert not [blob.name for blob in blobs if blob.name.startswith(".")]


@pytest.mark.parametrize("failpoint", BAD)
def test_a_rollback_survives_kill_9_at(
    failpoint: str, committed: Scene, bad: Release, tmp_path: Path
) -> None:
    device = Device(committed, tmp_path / DEVICE)
    committed.want(bad)
    with AgentProcess(device.config, failpoint) as agent:
        agent.wait_killed()
    device.assert_what_was_committed_can_run()
    with AgentProcess(device.config) as agent:
        eventually(lambda: device.state.phase is Phase.ROLLED_BACK)
        eventually(lambda: device.versions()[-1:] == ["1.0.0"], what="results of the old one")
        agent.stop()
    assert device.state.running.release_version == "1.0.0"


@pytest.mark.parametrize(
    "failpoint", ["journal-before:kill", "journal-after:kill", "collect:kill", "collected:kill:2"]
)
def test_a_model_that_is_wanted_no_more_stays_gone_after_kill_9_at(
    failpoint: str, committed: Scene, tmp_path: Path
) -> None:
    device = Device(committed, tmp_path / DEVICE)
    committed.fleet.want(DEVICE, {})
    with AgentProcess(device.config, failpoint) as agent:
        agent.wait_killed()
    blobs = device.folder / "releases" / "blobs" / "sha256"
    with AgentProcess(device.config) as agent:
        eventually(lambda: device.state.running is None, what="idle")
        eventually(lambda: list(blobs.iterdir()) == [], what="no files")
        agent.stop()
    assert device.state.phase is Phase.IDLE
    assert device.state.previous is None


def test_the_testing_child_that_is_killed_is_a_failed_test(
    committed: Scene, good: Release, tmp_path: Path
) -> None:
    device = Device(committed, tmp_path / DEVICE)
    committed.want(good)
    with AgentProcess(device.config, "testing-child:kill") as agent:
        eventually(lambda: device.state.phase is Phase.ROLLED_BACK)
        assert "ended with signal 9" in device.state.reason
        assert not agent.ended
        agent.stop()


@pytest.mark.parametrize("failpoint", CONFIGURING)
def test_a_change_of_the_configuration_survives_kill_9_at(
    failpoint: str, committed: Scene, tmp_path: Path
) -> None:
    device = Device(committed, tmp_path / DEVICE)
    before = committed.configuration
    after = replace(before, config_version=2, site={MODEL: {"threshold": 0.5}})
    committed.configure(after)
    try:
        with AgentProcess(device.config, failpoint) as agent:
            agent.wait_killed()
        state = read_state(device.folder / "state.json")
        assert state.configuration in (before, after)
        with AgentProcess(device.config) as agent:
            eventually(lambda: device.journal.configuration == after, what="the configuration")
            seen = len(device.versions())
            eventually(lambda: len(device.versions()) > seen, what="results")
            agent.stop()
        assert device.journal.trying is None
    finally:
        committed.configure(before)


def test_an_update_survives_kills_at_random(
    committed: Scene, good: Release, tmp_path: Path
) -> None:
    kill_at_random(committed, good, Device(committed, tmp_path / DEVICE), kills=6, seed=11)


@pytest.mark.nightly
@pytest.mark.timeout(24 * 3600)
def test_updates_survive_a_thousand_kills_at_random(
    committed: Scene, good: Release, tmp_path: Path
) -> None:
    kills, seed = int(os.environ.get("EDGEML_KILLS", "1000")), 0
    while kills > 0:
        device = Device(committed, tmp_path / str(seed) / DEVICE)
        kills -= kill_at_random(committed, good, device, kills=min(kills, 6), seed=seed)
        shutil.rmtree(device.folder)
        seed += 1


def kill_at_random(
    committed: Scene, good: Release, device: Device, *, kills: int, seed: int
) -> int:
    """Kill the agent during an update, again and again; returns how often."""
    committed.want(good)
    dice = random.Random(seed)
    done = 0
    for _ in range(kills):
        with AgentProcess(device.config) as agent:
            time.sleep(dice.uniform(0.3, 2.5))  # the moment of the power loss is the test's input
            agent.kill()
        done += 1
        device.assert_what_was_committed_can_run()
        if device.state.phase is Phase.ROLLED_BACK:
            break  # three starts during its trial are held against a release
    with AgentProcess(device.config) as agent:
        eventually(lambda: device.state.phase in {Phase.COMMITTED, Phase.ROLLED_BACK})
        before = len(device.versions())
        eventually(lambda: len(device.versions()) > before)
        agent.stop()
    return done
