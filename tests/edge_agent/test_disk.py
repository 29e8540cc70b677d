"""What a disk can do to a device: whatever it is, what was committed comes up and answers."""

import json
import shutil
from pathlib import Path

import pytest

from cloud_sync.messages import Configuration, Phase, SourceConfig, TrialPolicy
from cloud_sync.release import Release
from tests.cloud_sync.releases import make_release
from tests.edge_agent import disk
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, MODEL, Scene
from tests.sim.fleet import SimFleet

OUTBOX = ("outbox.db", "outbox.db-wal", "outbox.db-shm")


def commit(scene: Scene, *versions: str) -> list[Release]:
    """Commit releases, one after the other, and end the agent."""
    releases = []
    with AgentProcess(scene.config) as agent:
        for seed, version in enumerate(versions):
            releases.append(scene.release(version, seed=seed))
            scene.want(releases[-1])
            eventually(
                lambda v=version: scene.device.phase(MODEL, v) is Phase.COMMITTED, what=version
            )
        agent.stop()
    return releases


def committed(scene: Scene, model: str, version: str) -> None:
    what = f"{model} {version}"
    eventually(lambda: scene.device.phase(model, version) is Phase.COMMITTED, what=what)


def spoil(scene: Scene, digest: str) -> None:
    """Let a blob give EIO, as a bad sector does: so does a process's memory at address 0."""
    blob = scene.data / "releases" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    blob.unlink()
    blob.symlink_to("/proc/self/mem")


def leave_no_room(scene: Scene, other_disk: Path) -> None:
    """Fill the disk; the results go to another one, so that they can be seen."""
    results = scene.data / "results.jsonl"
    shutil.move(results, other_disk / results.name)
    results.symlink_to(other_disk / results.name)
    for name in (*OUTBOX, "state.json.old"):  # what would give room when it is written anew
        (scene.data / name).unlink(missing_ok=True)
    disk.fill(scene.folder)


def answers(scene: Scene, version: str) -> None:
    results = scene.data / "results.jsonl"
    before = len(results.read_text().splitlines())
    eventually(lambda: len(results.read_text().splitlines()) > before + 5, what="results")
    assert json.loads(results.read_text().splitlines()[-1])["release_version"] == version


def test_it_comes_up_on_a_full_disk_and_reports_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    with SimFleet(tmp_path / "registry") as fleet:
        scene = Scene(small_disk, fleet)
        commit(scene, "1.0.0")
        leave_no_room(scene, tmp_path)
        asked = len(fleet.requests)
        with AgentProcess(scene.config) as agent:
            answers(scene, "1.0.0")
            eventually(lambda: len(fleet.requests) > asked, what="asking for its desired state")
            scene.device.records.clear()
            disk.free(small_disk)
            eventually(lambda: scene.device.windows(), 30, "telemetry")
            agent.stop()


def test_a_trial_that_was_going_on_waits_until_the_disk_has_room(
    tmp_path: Path, small_disk: Path
) -> None:
    with SimFleet(tmp_path / "registry") as fleet:
        scene = Scene(small_disk, fleet)
        commit(scene, "1.0.0")
        trial = TrialPolicy(soak_s=3.0, min_inferred=10, latency_slack_ms=1000.0)
        with AgentProcess(scene.config) as agent:
            scene.want(scene.release("1.1.0"), trial=trial)
            eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.TRIAL, what="trial")
            agent.kill()
        leave_no_room(scene, tmp_path)
        with AgentProcess(scene.config) as agent:
            answers(scene, "1.0.0")
            disk.free(small_disk)
            # What was journalled while there was no outbox is told by the hello.
            eventually(
                lambda: scene.device.reported.models[MODEL].running_version == "1.1.0", what="1.1.0"
            )
            agent.stop()


def test_a_damaged_outbox_begins_a_new_stream(scene: Scene) -> None:
    commit(scene, "1.0.0")
    before = {stream for stream, _ in scene.device.records}
    for name in OUTBOX[1:]:
        (scene.data / name).unlink(missing_ok=True)
    (scene.data / "outbox.db").write_bytes(b"\0garbage" * 2000)
    with AgentProcess(scene.config) as agent:
        answers(scene, "1.0.0")
        eventually(lambda: {s for s, _ in scene.device.records} - before, what="a new stream")
        agent.stop()
    assert (scene.data / "outbox.db.damaged").exists()


def test_an_outbox_that_cannot_be_opened_does_not_keep_it_from_running(scene: Scene) -> None:
    commit(scene, "1.0.0")
    for name in OUTBOX:
        (scene.data / name).unlink(missing_ok=True)
    (scene.data / "outbox.db").mkdir()
    with AgentProcess(scene.config) as agent:
        answers(scene, "1.0.0")
        scene.want(scene.release("1.1.0", seed=1))
        answers_eventually(scene, "1.1.0")
        assert agent.stop()[0] == 0


def answers_eventually(scene: Scene, version: str) -> None:
    results = scene.data / "results.jsonl"
    eventually(lambda: f'"{version}"' in results.read_text(), what=f"{version} answers")


@pytest.mark.parametrize("part", ["index", "manifest", "model"])
def test_a_release_that_cannot_be_read_gives_way_to_the_one_before(scene: Scene, part: str) -> None:
    _, release = commit(scene, "1.0.0", "1.1.0")
    variant = release.variants[0]
    documents = {"index": release.digest, "manifest": variant.digest}
    spoil(scene, documents.get(part) or variant.file(part).digest)
    with AgentProcess(scene.config) as agent:
        answers(scene, "1.0.0")
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.ROLLED_BACK, what="told")
        scene.want(release, attempt=2)  # fetched again
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.COMMITTED, what="again")
        agent.stop()


def test_an_only_release_that_cannot_be_read_gives_way_to_what_the_fleet_wants_next(
    scene: Scene,
) -> None:
    [release] = commit(scene, "1.0.0")
    spoil(scene, release.variants[0].file("model").digest)
    with AgentProcess(scene.config) as agent:
        scene.want(scene.release("1.1.0", seed=1))
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.COMMITTED, what="1.1.0")
        answers(scene, "1.1.0")
        agent.stop()


def test_a_model_that_cannot_be_read_does_not_take_the_others_along(scene: Scene) -> None:
    other = scene.fleet.publish(make_release(scene.folder / "other", model="another", seed=5)[0])
    good = scene.release("1.0.0")
    wanted = {"another": scene.fleet.desired(other), MODEL: scene.fleet.desired(good)}
    source = scene.configuration.sources[0]
    both = Configuration(
        config_version=1,
        sources=(
            source,
            SourceConfig(name="two", uri=source.uri, model="another", fps=50.0),
        ),
        telemetry_every_s=0.5,
    )
    scene.fleet.want(DEVICE, wanted, both)
    with AgentProcess(scene.config) as agent:
        for model in wanted:
            eventually(
                lambda m=model: scene.device.phase(m, "1.0.0") is Phase.COMMITTED, what=model
            )
        agent.stop()
    spoil(scene, other.digest)
    with AgentProcess(scene.config) as agent:
        answers(scene, "1.0.0")
        eventually(lambda: "cannot be read" in (scene.data / "agent.log").read_text())
        agent.stop()


SOON = """
from edge_agent import link
from edge_agent.update import driver
link.POLL_ALONE_S = 0.3
driver.LOOK_S = (0.2, 1.0)
from edge_agent.cli import app
app()
"""


def test_an_update_that_a_full_disk_refused_is_taken_up_again_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    with SimFleet(tmp_path / "registry") as fleet:
        scene = Scene(small_disk, fleet)
        commit(scene, "1.0.0")
        filler = small_disk / disk.FILLER
        # Room for journal and outbox, and none to spare for another release.
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - (4 << 20)))
        with AgentProcess(scene.config, code=SOON) as agent:
            scene.want(scene.release("1.1.0", seed=1))
            eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.REFUSED, what="refused")
            assert "The disk has no room" in scene.device.states(MODEL)[-1].reason
            disk.free(small_disk)
            committed(scene, MODEL, "1.1.0")
            agent.stop()
