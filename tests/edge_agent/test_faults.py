"""What a registry or a link can do to an update: refused with a reason, the old one stays."""

import json
from pathlib import Path

import pytest

from cloud_sync.messages import Configuration, Phase, ReportedModel, SourceConfig, TrialPolicy
from cloud_sync.release import Release
from tests.cloud_sync.releases import make_release
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, MODEL, UNSURE, Scene
from tests.sim import fleet as simulated
from tests.sim.fleet import SimFleet


def commit(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="1.0.0")


def ended(scene: Scene, version: str, phase: Phase) -> ReportedModel:
    eventually(lambda: scene.device.phase(MODEL, version) is phase, what=f"{version} {phase}")
    return scene.device.states(MODEL)[-1]


def assert_still_answers(scene: Scene, version: str) -> None:
    results = scene.data / "results.jsonl"
    before = len(results.read_text().splitlines())
    eventually(lambda: len(results.read_text().splitlines()) > before + 5, what="results")
    assert json.loads(results.read_text().splitlines()[-1])["release_version"] == version


def blob_of(release: Release, role: str) -> str:
    return release.variants[0].file(role).digest


@pytest.mark.parametrize(
    ("fault", "role"),
    [
        ("corrupted", "model"),
        ("truncated", "model"),
        ("swapped", "model"),
        ("longer", "golden"),
        ("corrupted", "recorded"),
    ],
)
def test_a_blob_that_is_not_what_its_digest_says_is_refused(
    scene: Scene, fault: str, role: str
) -> None:
    with AgentProcess(scene.config) as agent:
        commit(scene)
        release = scene.release("1.1.0", seed=1)
        digest = blob_of(release, role)
        data = scene.fleet.blobs.path(digest).read_bytes()
        scene.fleet.wrong[digest] = {
            "corrupted": data[:50] + bytes([data[50] ^ 1]) + data[51:],
            "truncated": data[:-7],
            "swapped": b"x" * len(data),
            "longer": data + b"more",
        }[fault]
        scene.want(release)
        last = ended(scene, "1.1.0", Phase.REFUSED)
        assert "not what its" in last.reason
        assert "sha256:" in last.reason
        assert last.running_version == "1.0.0"
        assert_still_answers(scene, "1.0.0")
        # The registry is mended, and the fleet tries once more.
        del scene.fleet.wrong[digest]
        scene.want(release, attempt=2)
        ended(scene, "1.1.0", Phase.COMMITTED)
        agent.stop()


def test_a_swapped_manifest_is_refused(scene: Scene) -> None:
    with AgentProcess(scene.config) as agent:
        commit(scene)
        release, other = scene.release("1.1.0", seed=1), scene.release("1.2.0", seed=2)
        scene.fleet.wrong[release.variants[0].digest] = scene.fleet.blobs.read(
            other.variants[0].digest, 1 << 20
        )
        scene.want(release)
        last = ended(scene, "1.1.0", Phase.REFUSED)
        assert last.running_version == "1.0.0"
        assert_still_answers(scene, "1.0.0")
        agent.stop()


def test_a_download_that_is_cut_goes_on_where_it_stopped(scene: Scene) -> None:
    release = scene.release("1.0.0")
    scene.fleet.cut_after[blob_of(release, "golden")] = 300
    scene.want(release)
    with AgentProcess(scene.config) as agent:
        ended(scene, "1.0.0", Phase.COMMITTED)
        agent.stop()


def test_an_update_waits_while_the_registry_is_away(scene: Scene) -> None:
    release = scene.release("1.0.0")
    hidden = scene.fleet.blobs.path(blob_of(release, "model"))
    hidden.rename(hidden.with_suffix(".away"))
    scene.want(release)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.DOWNLOADING)
        hidden.with_suffix(".away").rename(hidden)
        ended(scene, "1.0.0", Phase.COMMITTED)
        agent.stop()


def test_a_release_of_another_model_is_refused(scene: Scene) -> None:
    scene.want(scene.release("1.0.0", model="other"))
    with AgentProcess(scene.config) as agent:
        assert "wanted is toy" in ended(scene, "1.0.0", Phase.REFUSED).reason
        agent.stop()


def test_a_variant_that_the_device_would_not_choose_is_refused(scene: Scene) -> None:
    release, other = scene.release("1.0.0"), scene.release("2.0.0", seed=4)
    scene.want(release, variant=other.variants[0])
    with AgentProcess(scene.config) as agent:
        assert "another variant" in ended(scene, "1.0.0", Phase.REFUSED).reason
        agent.stop()


def creep(scene: Scene, release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the download that waits for the release's model begin, and last for minutes."""
    model = blob_of(release, "model")
    monkeypatch.setattr(simulated, "CHUNK", 16)
    scene.fleet.pace_s = 0.5
    scene.fleet.requests.clear()
    away(scene, release).rename(scene.fleet.blobs.path(model))
    eventually(lambda: asked_for(scene, model), what="the slow download")


def away(scene: Scene, release: Release) -> Path:
    return scene.fleet.blobs.path(blob_of(release, "model")).with_suffix(".away")


def asked_for(scene: Scene, digest: str) -> bool:
    return any(request.endswith(digest) for request in scene.fleet.requests)


def test_a_change_of_mind_in_the_middle_of_a_download_is_followed_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = scene.release("1.0.0"), scene.release("1.1.0", seed=1)
    scene.fleet.blobs.path(blob_of(first, "model")).rename(away(scene, first))
    scene.want(first)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.DOWNLOADING)
        creep(scene, first, monkeypatch)
        scene.want(second)
        eventually(lambda: asked_for(scene, second.digest), 10, "the second's documents")
        scene.fleet.pace_s = 0.0
        last = ended(scene, "1.1.0", Phase.COMMITTED)
        assert last.running_version == "1.1.0"
        agent.stop()
    assert Phase.COMMITTED not in {
        s.phase for s in scene.device.states(MODEL) if s.release_version == "1.0.0"
    }


def test_one_models_slow_download_holds_up_no_other_models_update(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = scene.fleet.publish(make_release(scene.folder / "other", model="other", seed=5)[0])
    scene.fleet.blobs.path(blob_of(slow, "model")).rename(away(scene, slow))
    good, bad = scene.release("1.0.0"), scene.release("1.1.0", pipeline=UNSURE)
    wanted = {"other": scene.fleet.desired(slow), MODEL: scene.fleet.desired(good)}
    scene.fleet.want(DEVICE, wanted, scene.configuration)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase("other", "1.0.0") is Phase.DOWNLOADING)
        ended(scene, "1.0.0", Phase.COMMITTED)
        trial = TrialPolicy(soak_s=5.0, timeout_s=20.0, min_inferred=50, latency_slack_ms=1000.0)
        scene.fleet.want(DEVICE, wanted | {MODEL: scene.fleet.desired(bad, trial=trial)})
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.TRIAL, what="the trial")
        creep(scene, slow, monkeypatch)
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.ROLLED_BACK)
        assert scene.device.phase("other", "1.0.0") is Phase.DOWNLOADING
        assert_still_answers(scene, "1.0.0")
        agent.stop()


def test_a_first_release_that_is_taken_back_in_its_trial_is_not_committed(scene: Scene) -> None:
    trial = TrialPolicy(soak_s=60.0, timeout_s=90.0, min_inferred=10)
    scene.want(scene.release("1.0.0"), trial=trial)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.TRIAL, what="trial")
        scene.fleet.want(DEVICE, {}, scene.configuration)
        eventually(lambda: scene.device.states(MODEL)[-1].phase is Phase.IDLE, what="idle")
        assert_silent(scene)
        agent.stop()


def test_a_model_that_is_wanted_no_more_stops_and_its_files_go(scene: Scene) -> None:
    store = scene.data / "releases" / "blobs" / "sha256"
    with AgentProcess(scene.config) as agent:
        commit(scene)
        scene.fleet.want(DEVICE, {}, scene.configuration)
        eventually(lambda: list(store.iterdir()) == [], what="no files")
        assert_silent(scene)
        assert scene.device.states(MODEL)[-1].running_version == ""
        commit(scene)
        assert_still_answers(scene, "1.0.0")
        agent.stop()


def assert_silent(scene: Scene) -> None:
    results = scene.data / "results.jsonl"
    size = [results.stat().st_size]

    def quiet() -> bool:
        size.append(results.stat().st_size)
        return size[-1] == size[-2]

    # Over a hundred frames come in a second.
    eventually(quiet, 10, "silence", every_s=1.0)


def test_a_desired_state_of_another_director_or_of_the_past_is_not_taken(scene: Scene) -> None:
    with AgentProcess(scene.config) as agent:
        commit(scene)
        newer = scene.device.wanted
        real = scene.fleet.director
        scene.fleet.director = SimFleet(scene.folder / "other").director
        scene.want(scene.release("6.6.6", seed=6))
        asked = len(scene.device.hellos)
        eventually(lambda: len(scene.device.hellos) > asked + 2, what="more hellos")
        assert scene.device.reported.desired_counter == newer.counter
        scene.fleet.director = real
        agent.stop()


def test_a_damaged_committed_release_gives_way_to_the_one_before(scene: Scene) -> None:
    with AgentProcess(scene.config) as agent:
        commit(scene)
        release = scene.release("1.1.0", seed=1)
        scene.want(release)
        ended(scene, "1.1.0", Phase.COMMITTED)
        agent.stop()
    store = scene.data / "releases" / "blobs" / "sha256"
    damaged = store / blob_of(release, "model").removeprefix("sha256:")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with AgentProcess(scene.config) as agent:
        assert_still_answers(scene, "1.0.0")
        last = ended(scene, "1.1.0", Phase.ROLLED_BACK)
        assert "damaged" in last.reason
        scene.want(release, attempt=2)  # fetched again
        ended(scene, "1.1.0", Phase.COMMITTED)
        agent.stop()


def test_a_configuration_that_cannot_be_applied_is_reported_and_the_old_one_stays(
    scene: Scene,
) -> None:
    with AgentProcess(scene.config) as agent:
        commit(scene)
        good = scene.configuration
        missing = SourceConfig(name="belt", uri="file:///no/such/video.mp4", model=MODEL)
        scene.configure(Configuration(config_version=2, sources=(missing,)))
        eventually(lambda: scene.device.reported.config_error, what="the error")
        assert "no/such/video.mp4" in scene.device.reported.config_error
        assert scene.device.reported.config_version == good.config_version
        assert_still_answers(scene, "1.0.0")
        agent.stop()
    with AgentProcess(scene.config) as agent:
        assert_still_answers(scene, "1.0.0")
        agent.stop()


def test_site_parameters_reach_the_pipeline_between_two_frames(scene: Scene) -> None:
    with AgentProcess(scene.config) as agent:
        commit(scene)
        strict = Configuration(
            config_version=2,
            sources=scene.configuration.sources,
            telemetry_every_s=0.5,
            site={MODEL: {"threshold": 1.0}},
        )
        scene.configure(strict)
        eventually(lambda: scene.device.reported.config_version == 2, what="applied")
        results = scene.data / "results.jsonl"
        before = len(results.read_text().splitlines())
        eventually(lambda: len(results.read_text().splitlines()) > before + 10)
        tail = [json.loads(x) for x in results.read_text().splitlines()[-5:]]
        assert not any(line["confident"] for line in tail)
        # One that the release does not let a site set is refused whole.
        wrong = {MODEL: {"gain": 2}}
        scene.configure(Configuration(config_version=3, site=wrong))
        eventually(lambda: "may not set gain" in scene.device.reported.config_error)
        assert_still_answers(scene, "1.0.0")
        agent.stop()
