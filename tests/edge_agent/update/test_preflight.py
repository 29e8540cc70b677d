"""Before the first byte of a model: is there room for a second one, on disk and in memory?"""

from pathlib import Path

import pytest

from cloud_sync.messages import Phase
from edge_agent.trust.identity import load_config
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene

# The device's other programs leave almost nothing as long as a file is there.
CROWDED = """
from pathlib import Path
from edge_agent import memory, link
from edge_agent.update import driver
available = memory.available_bytes
crowd = Path(CROWD)
memory.available_bytes = lambda root=Path("/"): 5 << 20 if crowd.exists() else available(root)
link.POLL_ALONE_S = 0.3
driver.LOOK_S = (0.2, 1.0)
from edge_agent.cli import app
app()
"""


def refused(scene: Scene, version: str) -> str:
    eventually(lambda: scene.device.phase(MODEL, version) is Phase.REFUSED, what="refused")
    return scene.device.states(MODEL)[-1].reason


def crowded(scene: Scene) -> tuple[Path, str]:
    """The file that fills the memory, and the agent's code that looks for it."""
    crowd = scene.folder / "crowd"
    crowd.touch()
    return crowd, CROWDED.replace("CROWD", repr(str(crowd)))


def phases(scene: Scene) -> list[Phase]:
    return [state.phase for state in scene.device.states(MODEL)]


def test_without_memory_for_two_models_it_is_refused_before_the_download(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    _, code = crowded(scene)
    with AgentProcess(scene.config, code=code) as agent:
        reason = refused(scene, "1.0.0")
        assert "no room for a second model" in reason
        assert "taken up again by itself" in reason
        agent.stop()
    assert phases(scene) == [Phase.RESOLVING, Phase.REFUSED]
    model = scene.fleet.blobs
    asked = [r for r in scene.fleet.requests if "/blobs/" in r]
    assert all(model.path(r.rpartition("/")[2]).stat().st_size < 1 << 12 for r in asked)


def test_it_is_taken_up_again_by_itself_when_there_is_memory(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    crowd, code = crowded(scene)
    with AgentProcess(scene.config, code=code) as agent:
        refused(scene, "1.0.0")
        crowd.unlink()
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="1.0.0")
        agent.stop()
    assert phases(scene)[:3] == [Phase.RESOLVING, Phase.REFUSED, Phase.RESOLVING]


def test_it_is_taken_up_again_by_itself_after_a_restart(scene: Scene) -> None:
    scene.want(scene.release("1.0.0"))
    crowd, code = crowded(scene)
    with AgentProcess(scene.config, code=code) as agent:
        refused(scene, "1.0.0")
        agent.kill()
    crowd.unlink()
    with AgentProcess(scene.config, code=code) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="1.0.0")
        agent.stop()


def test_a_memory_ceiling_that_two_models_would_break_refuses(scene: Scene) -> None:
    scene.config.write_text(scene.config.read_text() + "memory_mb = 10\n")
    assert load_config(scene.config).memory_mb == 10
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        assert "memory_mb is 10" in refused(scene, "1.0.0")
        agent.stop()


@pytest.mark.parametrize("line", ["nice = 40", "cpus = [-1]", 'threads = "many"', "speed = 3"])
def test_an_agent_toml_that_says_nonsense_is_an_error_with_its_reason(
    line: str, scene: Scene
) -> None:
    from edgeml.errors import UserError

    scene.config.write_text(scene.config.read_text() + line + "\n")
    with pytest.raises(UserError, match="cannot be used"):
        load_config(scene.config)


def test_priority_and_cores_are_those_of_agent_toml(scene: Scene) -> None:
    import os

    core = min(os.sched_getaffinity(0))
    scene.config.write_text(scene.config.read_text() + f"nice = 7\ncpus = [{core}]\n")
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="1.0.0")
        for task in Path(f"/proc/{agent.process.pid}/task").iterdir():
            assert os.getpriority(os.PRIO_PROCESS, int(task.name)) == 7
            assert os.sched_getaffinity(int(task.name)) == {core}
        agent.stop()
