"""Inference that hangs: the release is taken back, and the device goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_sync.evidence import Verdict
from cloud_sync.messages import Configuration, Phase, TrialPolicy
from tests.edge_agent.processes import SOON_S, AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene

# A driver that hangs: once its speed is known, a release that a file names never answers.
HANGING = """
import time
from pathlib import Path
from edge_agent import link
from edge_agent.loaded import LoadedRelease
link.POLL_ALONE_S = 0.3
answer = LoadedRelease.infer
def infer(self, *rest):
    if self.live.inferred >= 60 and self.desired.release_version in Path({hangs!r}).read_text():
        time.sleep(10_000)
    return answer(self, *rest)
LoadedRelease.infer = infer
from edgeml.cli import main
main()
"""


@pytest.fixture
def hangs(scene: Scene) -> Path:
    """The file that names the releases that hang."""
    path = scene.folder / "hangs"
    path.write_text("")
    return path


@pytest.fixture
def agent(scene: Scene, hangs: Path) -> Iterator[AgentProcess]:
    code = HANGING.format(hangs=str(hangs))
    with AgentProcess(scene.config, code=code, arguments=("agent",)) as running:
        scene.want(scene.release("1.0.0"))
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="1.0.0")
        yield running


def answers(scene: Scene, version: str) -> None:
    results = scene.data / "results.jsonl"
    before = len(results.read_text().splitlines())
    eventually(lambda: len(results.read_text().splitlines()) > before + 5, what="results")
    assert json.loads(results.read_text().splitlines()[-1])["release_version"] == version


def test_a_release_that_hangs_in_its_trial_fails_it_and_the_device_goes_on(
    scene: Scene, agent: AgentProcess, hangs: Path
) -> None:
    hangs.write_text("1.1.0")
    scene.want(scene.release("1.1.0", seed=1), trial=TrialPolicy(soak_s=9.0, min_inferred=10))
    eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.ROLLED_BACK, what="the end")
    assert "stuck inference" in scene.device.states(MODEL)[-1].reason
    eventually(
        lambda: (
            ("live.stuck", Verdict.FAIL)
            in [(gate.name, gate.result) for e in scene.device.evidence() for gate in e.gates]
        ),
        what="evidence",
    )
    answers(scene, "1.0.0")
    windows = len(scene.device.windows())
    eventually(lambda: len(scene.device.windows()) > windows + 1, what="telemetry")
    # The thread that hangs holds up neither the next release nor a configuration.
    scene.want(scene.release("1.2.0", seed=2))
    eventually(lambda: scene.device.phase(MODEL, "1.2.0") is Phase.COMMITTED, what="1.2.0")
    sources = scene.configuration.sources
    scene.configure(Configuration(config_version=7, sources=sources, telemetry_every_s=0.5))
    eventually(lambda: scene.device.reported.config_version == 7, what="the configuration")
    assert agent.stop()[1] < SOON_S
    settled = [w.inferred + w.empty + w.errors + w.replaced for w in scene.device.windows()]
    accepted = sum(w.accepted for w in scene.device.windows())
    assert 0 <= accepted - sum(settled) <= 1


def test_a_committed_release_that_hangs_is_started_again(
    scene: Scene, agent: AgentProcess, hangs: Path
) -> None:
    hangs.write_text("1.0.0")
    log = scene.data / "agent.log"
    eventually(lambda: "is stuck" in log.read_text(), what="found")
    hangs.write_text("")
    answers(scene, "1.0.0")
    agent.stop()


def test_desired_states_are_taken_while_a_frame_takes_for_ever(
    scene: Scene, agent: AgentProcess, hangs: Path
) -> None:
    hangs.write_text("1.0.0")
    scene.configure(Configuration(config_version=7, sources=scene.configuration.sources))
    eventually(lambda: scene.device.reported.config_version == 7, 3, "the configuration")
    hangs.write_text("")
    agent.stop()


def test_what_cannot_be_mended_here_ends_the_process_for_its_supervisor(
    scene: Scene, agent: AgentProcess, hangs: Path
) -> None:
    hangs.write_text("1.0.0")
    assert agent.process.wait(60) == 9
    assert "let a supervisor restart this" in (scene.data / "agent.log").read_text()
    hangs.write_text("")
    with AgentProcess(scene.config) as again:
        answers(scene, "1.0.0")
        again.stop()
