"""The outcome of a race is kept, for these runtimes on this kind of device."""

import threading
from pathlib import Path

import msgspec
import pytest

from cloud_sync.evidence import Verdict
from cloud_sync.messages import DesiredModel, Phase
from cloud_sync.release import Layout
from edge_agent.choices import Choices
from edge_agent.execution import Execution
from edge_agent.store import ReleaseStore
from edge_agent.testing import TestRequest, TestResult, run_child
from edge_agent.update.race import run_race
from hardware.capabilities import Capabilities, RuntimeInfo
from hardware.probes import probe
from tests.cloud_sync.releases import make_release
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene


def released(folder: Path) -> tuple[ReleaseStore, DesiredModel, Layout]:
    layout, release = make_release(folder)
    desired = DesiredModel(
        release=release.digest,
        variant=release.variants[0].digest,
        release_version=release.version,
    )
    return ReleaseStore(layout.folder), desired, layout


def with_version(version: str) -> Capabilities:
    runtimes = (RuntimeInfo(name="onnxruntime", version=version),)
    return msgspec.structs.replace(probe(), runtimes=runtimes)


def test_a_choice_lasts_and_holds_for_these_versions_only(tmp_path: Path) -> None:
    store, desired, _ = released(tmp_path / "r")
    variant = store.variant(desired.release, desired.variant)
    path = tmp_path / "choices.json"
    before = Choices(path, with_version("1.20"))
    first = before.of(desired, variant)
    assert (first, before.is_known(desired)) == (before.candidates(variant)[0], False)
    chosen = before.candidates(variant)[-1]
    before.keep(desired, chosen)
    again = Choices(path, with_version("1.20"))
    assert (again.of(desired, variant), again.is_known(desired)) == (chosen, True)
    newer = Choices(path, with_version("1.21"))
    assert not newer.is_known(desired)
    assert newer.of(desired, variant).version == "1.21"


@pytest.mark.parametrize("content", [b"", b"nonsense", b'{"k": 5}', b"\xff\xfe"])
def test_a_damaged_file_costs_a_race_and_no_more(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    path.write_bytes(content)
    store, desired, _ = released(tmp_path / "r")
    choices = Choices(path, with_version("1.20"))
    assert not choices.is_known(desired)
    choices.keep(desired, choices.of(desired, store.variant(desired.release, desired.variant)))
    assert Choices(path, with_version("1.20")).is_known(desired)


def test_the_race_runs_real_children_and_keeps_what_was_compiled(tmp_path: Path) -> None:
    store, desired, _ = released(tmp_path / "r")
    choices = Choices(tmp_path / "choices.json", probe())
    ran: list[Execution] = []

    def run(request: TestRequest, stop: threading.Event) -> TestResult | None:
        ran.append(request.execution)
        return run_child(request, stop)

    outcome = run_race(store, choices, desired, threading.Event(), run)
    assert outcome is not None
    # The model is too small for more threads to bring anything.
    assert [(e.runtime, e.threads) for e in ran] == [("onnxruntime", 1)]
    assert [r.result for r in outcome.race] == [Verdict.PASS]
    assert outcome.race[0].chosen
    assert list(store.compiled(store.variant(desired.release, desired.variant)).iterdir())


def test_the_fleet_is_told_of_the_race_and_a_lost_choice_is_raced_again(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="1.0.0")
        agent.stop()
    [test] = [e for e in scene.device.evidence() if e.stage == "test"]
    assert [(r.runtime, r.threads, r.chosen) for r in test.race] == [("onnxruntime", 1, True)]
    assert test.conditions.threads == 1
    assert test.runtime_version == test.race[0].runtime_version != ""
    # As after another version of a runtime was installed.
    (scene.data / "choices.json").unlink()
    with AgentProcess(scene.config) as agent:
        eventually(lambda: (scene.data / "choices.json").exists(), what="the race")
        eventually(
            lambda: len([e for e in scene.device.evidence() if e.stage == "test"]) == 2,
            what="its evidence",
        )
        assert scene.device.states(MODEL)[-1].phase is Phase.COMMITTED
        agent.stop()
