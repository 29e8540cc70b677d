"""A device of a group waits where it is told to, and `kill -9` at those places changes nothing."""

import json
import time

import msgspec

from cloud_sync.messages import Phase
from cloud_sync.release import Release
from cloud_sync.update_machine import ModelState, waits
from edge_agent.failpoints import TOGETHER_NAMES
from edge_agent.update.journal import read_state
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, MODEL, Scene


def let_go(scene: Scene, release: Release, until: str, switch_by: float = 0.0) -> None:
    wanted = msgspec.structs.replace(scene.fleet.desired(release), until=until, switch_by=switch_by)
    scene.fleet.want(DEVICE, {MODEL: wanted}, scene.configuration)


def state(scene: Scene) -> ModelState:
    return read_state(scene.data / "state.json").models.get(MODEL, ModelState())


def versions(scene: Scene) -> list[str]:
    lines = (scene.data / "results.jsonl").read_text().splitlines()
    return [json.loads(line)["release_version"] for line in lines if line.endswith("}")]


def die_at(scene: Scene, name: str) -> None:
    with AgentProcess(scene.config, f"{name}:kill") as agent:
        agent.wait_killed()


def test_a_device_waits_where_it_is_told_to_and_comes_up_there_after_kill_9(scene: Scene) -> None:
    first, second = scene.release("1.0.0"), scene.release("1.1.0", seed=1)
    scene.want(first)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: state(scene).phase is Phase.COMMITTED, what="1.0.0")
        agent.stop()

    prepared, switching = TOGETHER_NAMES
    let_go(scene, second, "prepared")
    die_at(scene, prepared)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.PREPARED, what="prepared")
        # It is told to switch by a time that is over: its group went back without it.
        let_go(scene, second, "trial", switch_by=time.time() - 60)
        eventually(lambda: (c := state(scene).candidate) is not None and c.until == "trial")
        seen = len(versions(scene))
        eventually(lambda: len(versions(scene)) > seen + 100, what="a second of frames")
        agent.stop()
    assert state(scene).phase is Phase.PREPARED
    assert set(versions(scene)) == {"1.0.0"}

    let_go(scene, second, "trial", switch_by=time.time() + 600)
    die_at(scene, switching)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: state(scene).passed is not None, what="its trial")
        agent.kill()
    assert waits(state(scene))
    assert state(scene).running is not None
    assert state(scene).running.release == first.digest  # type: ignore[union-attr]
    let_go(scene, second, "")
    with AgentProcess(scene.config) as agent:
        eventually(lambda: state(scene).phase is Phase.COMMITTED, what="1.1.0")
        agent.stop()
    assert state(scene).running.release == second.digest  # type: ignore[union-attr]
