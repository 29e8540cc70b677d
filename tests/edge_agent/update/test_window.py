"""Update windows on a whole agent: it waits and says for what, and goes back without waiting."""

import time

import msgspec

from cloud_sync.messages import Phase
from cloud_sync.windows import UpdateWindow
from edge_agent.update.journal import read_state
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, MODEL, Scene

ALWAYS = UpdateWindow(begins="00:00", ends="00:00")


def far() -> UpdateWindow:
    """One that opens in about twelve hours of this machine's time."""
    hours = [f"{time.localtime(time.time() + h * 3600).tm_hour:02}:00" for h in (12, 13)]
    return UpdateWindow(begins=hours[0], ends=hours[1])


def with_windows(scene: Scene, version: int, *windows: UpdateWindow) -> None:
    scene.configuration = msgspec.structs.replace(
        scene.configuration, config_version=version, update_windows=windows
    )


def said(scene: Scene, version: str) -> str:
    states = [s for s in scene.device.states(MODEL) if s.release_version == version]
    return states[-1].reason if states else ""


def running(scene: Scene) -> str:
    state = read_state(scene.data / "state.json").models.get(MODEL)
    return state.running.release_version if state and state.running else ""


def test_an_update_waits_for_its_window_over_a_restart_and_one_back_does_not(scene: Scene) -> None:
    first, second = scene.release("1.0.0"), scene.release("1.1.0", seed=1)
    scene.want(first)
    with AgentProcess(scene.config) as agent:
        eventually(lambda: running(scene) == "1.0.0", what="1.0.0")
        with_windows(scene, 2, far())
        scene.want(second)
        eventually(lambda: "waits for its update window" in said(scene, "1.1.0"), what="it waits")
        assert str(far().begins) in said(scene, "1.1.0")
        assert scene.device.phase(MODEL, "1.1.0") is Phase.RESOLVING
        agent.stop()

    with AgentProcess(scene.config) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.RESOLVING)
        assert running(scene) == "1.0.0"
        with_windows(scene, 3, far(), ALWAYS)
        scene.want(second)
        eventually(lambda: running(scene) == "1.1.0", what="its window is open")
        eventually(lambda: scene.device.phase(MODEL, "1.1.0") is Phase.COMMITTED)
        assert said(scene, "1.1.0") == ""

        with_windows(scene, 4, far())
        scene.want(first)
        eventually(lambda: running(scene) == "1.0.0", what="back, whatever the hour")
        agent.stop()


def test_a_zone_that_is_not_known_here_is_refused_with_the_reason(scene: Scene) -> None:
    with_windows(scene, 2, UpdateWindow(begins="01:00", ends="02:00", timezone="Nowhere/Here"))
    scene.fleet.want(DEVICE, {}, scene.configuration)
    with AgentProcess(scene.config) as agent:
        eventually(
            lambda: "Nowhere/Here" in read_state(scene.data / "state.json").config_error,
            what="refused",
        )
        agent.stop()
