"""A real agent process against a simulated fleet: the whole life of a device."""

import io
import json
import signal
import socket
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from cloud_sync.evidence import Verdict
from cloud_sync.messages import Phase, SourceConfig
from edge_agent.update.journal import read_state
from tests.edge_agent.processes import RUN, SOON_S, AgentProcess, descendants, eventually, is_alive
from tests.edge_agent.scene import MODEL, UNSURE, Scene
from tests.sim.fleet import QUICK_TRIAL


def test_a_release_is_pulled_tested_tried_and_committed_with_evidence(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed")
        eventually(lambda: scene.device.windows(), what="telemetry")
        assert agent.stop()[0] == 0
    phases = [state.phase for state in scene.device.states(MODEL)]
    assert phases == [
        Phase.RESOLVING,
        Phase.DOWNLOADING,
        Phase.VERIFYING,
        Phase.TESTING,
        Phase.TRIAL,
        Phase.COMMITTED,
    ]
    test, trial = scene.device.evidence()
    assert (test.stage, trial.stage) == ("test", "trial")
    assert test.golden is not None
    assert test.golden.max_difference == 0.0
    assert {gate.result for gate in (*test.gates, *trial.gates)} == {Verdict.PASS}
    assert trial.nonce == "nonce-1"
    line = json.loads((scene.data / "results.jsonl").read_text().splitlines()[0])
    assert line["model"] == MODEL
    assert line["release_version"] == "1.0.0"


def test_telemetry_accounts_for_every_frame(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: len(scene.device.windows()) > 4, what="windows")
        agent.stop()
    eventually(lambda: scene.device.windows())
    windows = scene.device.windows()
    accepted = sum(w.accepted for w in windows)
    settled = sum(w.inferred + w.empty + w.errors + w.replaced for w in windows)
    assert 0 <= accepted - settled <= 1  # the frame in flight at the end
    assert all(w.latency["total"].count == w.inferred for w in windows if w.inferred)


def test_a_release_that_does_badly_rolls_itself_back_and_is_not_tried_again(scene: Scene) -> None:
    good = scene.release("1.0.0")
    bad = scene.release("1.1.0", pipeline=UNSURE)
    scene.want(good)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED)
        scene.want(bad)
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.ROLLED_BACK)
        last = scene.device.states(MODEL)[-1]
        assert last.running_version == "1.0.0"
        assert "confident" in last.reason
        tried = len(scene.device.states(MODEL))
        scene.want(bad)  # the same attempt in a newer desired state
        eventually(lambda: scene.device.reported.desired_counter == 3, what="third state")
        assert len(scene.device.states(MODEL)) == tried
        scene.want(bad, attempt=2)
        eventually(lambda: len(scene.device.states(MODEL)) > tried, what="second attempt")
        agent.stop()


def test_a_first_release_that_does_badly_leaves_nothing_running(scene: Scene) -> None:
    spoilt = scene.release("1.0.0", spoil_recording=True)
    scene.want(spoilt)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.ROLLED_BACK)
        agent.stop()
    last = scene.device.states(MODEL)[-1]
    assert last.running_version == ""
    assert "the test on the device failed" in last.reason
    assert not (scene.data / "results.jsonl").read_text()


def test_blobs_that_no_release_refers_to_are_removed(scene: Scene) -> None:
    releases = [scene.release(f"1.{n}.0", seed=n) for n in range(3)]
    with AgentProcess(scene.config) as agent:
        for release in releases:
            scene.want(release)
            version = release.version
            eventually(
                lambda version=version: scene.device.phase(MODEL, version) is Phase.COMMITTED
            )
        store = scene.data / "releases" / "blobs" / "sha256"
        first = releases[0].digest.removeprefix("sha256:")
        eventually(lambda: not (store / first).exists(), what="1.0.0 removed")
        kept = {path.name for path in store.iterdir()}
        for release in releases[1:]:
            assert release.digest.removeprefix("sha256:") in kept
        agent.stop()


def test_a_committed_release_runs_without_any_fleet(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED)
        agent.kill()
    scene.fleet.stop()
    results = scene.data / "results.jsonl"
    before = len(results.read_text().splitlines())
    with AgentProcess(scene.config) as agent:
        eventually(lambda: len(results.read_text().splitlines()) > before + 20)
        status, _ = agent.stop()
        assert status == 0


def test_records_are_kept_until_the_fleet_acknowledges_them(scene: Scene) -> None:
    scene.fleet.acknowledges = False
    scene.want(scene.release("1.0.0"))
    state = scene.data / "state.json"
    with AgentProcess(scene.config) as agent:
        eventually(
            lambda: (
                state.exists()
                and MODEL in read_state(state).models
                and read_state(state).models[MODEL].phase is Phase.COMMITTED
            )
        )
        scene.device.records.clear()  # the fleet lost what it never acknowledged
        scene.fleet.acknowledges = True
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, 60)
        agent.stop()
    numbers = sorted(seq for _, seq in scene.device.records)
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_soon_and_leaves_nothing_running(scene: Scene, number: signal.Signals) -> None:
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: descendants(agent.process.pid), what="the testing child", every_s=0.002)
        children = descendants(agent.process.pid)
        status, seconds = agent.stop(number)
        assert status == 0
        assert seconds < SOON_S
        for child in children:
            eventually(lambda child=child: not is_alive(child), what="the child's end")
    assert (scene.data / "state.json").exists()


def test_it_stops_soon_while_the_fleet_does_not_answer(scene: Scene) -> None:
    scene.fleet.stop()
    port = int(scene.fleet.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), AgentProcess(scene.config) as agent:
        eventually(lambda: "is up" in (scene.data / "agent.log").read_text())
        status, seconds = agent.stop()
    assert status == 0
    assert seconds < SOON_S


def test_the_testing_child_does_not_outlive_a_killed_agent(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: descendants(agent.process.pid), every_s=0.002)
        children = descendants(agent.process.pid)
        agent.kill()
        for child in children:
            eventually(lambda child=child: not is_alive(child), 5, "the child's end")


def test_a_second_agent_on_the_same_folder_is_refused(scene: Scene) -> None:
    with AgentProcess(scene.config) as first:
        eventually(lambda: (scene.data / "outbox.db").exists())
        with AgentProcess(scene.config) as second:
            eventually(lambda: second.ended)
            assert second.process.returncode not in {0, None}
        assert "runs on" in (scene.data / "agent.log").read_text()
        assert not first.ended


def test_a_device_loads_nothing_of_the_server_or_the_converters() -> None:
    code = "import sys, edge_agent.agent, edge_agent.cli; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = {name.partition(".")[0] for name in out.stdout.split()}
    unwanted = {"fleet", "converters", "onnx", "pydantic", "sqlalchemy", "starlette", "fastapi"}
    assert not loaded & (unwanted | {"uvicorn", "scipy", "torch", "pandas", "onnxruntime"})


@pytest.mark.parametrize("off_s", [-50 * 365 * 86400, 3 * 365 * 86400])
def test_a_wrong_clock_keeps_no_release_from_a_device(scene: Scene, off_s: int) -> None:
    code = f"import time\nreal = time.time\ntime.time = lambda: real() + {off_s}\n{RUN}"
    with AgentProcess(scene.config, code=code) as agent:
        for seed, version in enumerate(("1.0.0", "1.1.0")):
            scene.want(scene.release(version, seed=seed))
            eventually(lambda v=version: scene.device.phase(MODEL, v) is Phase.COMMITTED)
        agent.stop()
    now = scene.device.wanted.issued_at
    assert read_state(scene.data / "state.json").proven == now


@pytest.mark.parametrize(("go_on", "end"), [(True, Phase.COMMITTED), (False, Phase.REFUSED)])
def test_what_the_golden_set_cannot_decide_follows_the_policy_and_is_no_failure(
    scene: Scene, go_on: bool, end: Phase
) -> None:
    release = scene.release("1.0.0", recorded_with="1.0", spoil_recording=True)
    scene.want(release, trial=msgspec.structs.replace(QUICK_TRIAL, try_undecided=go_on))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is end, what=end)
        agent.stop()
    [gate] = scene.device.evidence()[0].gates
    assert (gate.name, gate.result) == ("golden.labels", Verdict.UNDECIDED)
    assert read_state(scene.data / "state.json").models[MODEL].blocked == ()


def test_a_release_without_a_pipeline_takes_tensors_and_answers_with_its_outputs(
    scene: Scene,
) -> None:
    path = scene.folder / "tensors.sock"
    source = SourceConfig(name="tensors", uri=f"npy://{path}", model=MODEL)
    scene.configuration = msgspec.structs.replace(scene.configuration, sources=(source,))
    scene.want(scene.release("1.0.0", pipeline=b""))
    results = scene.data / "results.jsonl"
    tensor = np.random.default_rng(1).random((1, 4, 4), np.float32)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.TRIAL, what="trial")
        eventually(path.is_socket, what="the socket")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

            def sent() -> bool:
                data = io.BytesIO()
                np.save(data, tensor)
                client.sendall(data.getvalue())
                return scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED

            eventually(sent, what="committed")
        agent.stop()
    line = json.loads(results.read_text().splitlines()[-1])
    [output] = line["outputs"]
    assert (output["dtype"], output["shape"]) == ("float32", [1, 3])
    assert len(output["values"]) == 3
