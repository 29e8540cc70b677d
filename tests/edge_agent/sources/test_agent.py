"""A real agent whose camera on the network falls silent, beside a folder that goes on."""

import json
from typing import Any

import msgspec

from cloud_sync.messages import Phase
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene
from tests.edge_agent.sources.http_camera import HttpCamera
from tests.edge_agent.sources.seen import config


def lines(scene: Scene) -> list[dict[str, Any]]:
    path = scene.data / "results.jsonl"
    whole = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in whole]


def test_a_silent_camera_is_said_and_is_no_camera_that_sees_nothing(scene: Scene) -> None:
    with HttpCamera() as camera:
        gate = config(camera.url, name="gate", model=MODEL)
        both = (*scene.configuration.sources, gate)
        scene.configuration = msgspec.structs.replace(scene.configuration, sources=both)
        scene.want(scene.release("1.0.0"))
        with AgentProcess(scene.config) as agent:
            eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED)
            eventually(lambda: any(line.get("source") == "gate" for line in lines(scene)))
            camera.mode = "silent"
            eventually(lambda: "stalled" in _states(scene), what="stalled")
            stalled = next(line for line in lines(scene) if line.get("state") == "stalled")
            assert "No frame for" in stalled["reason"]
            count = len(lines(scene))
            eventually(lambda: any(line["source"] == "belt" for line in lines(scene)[count:]))
            camera.mode = "good"
            eventually(lambda: _states(scene)[-1] == "running", what="running again")
            assert agent.stop()[0] == 0


def _states(scene: Scene) -> list[str]:
    return [line["state"] for line in lines(scene) if line["source"] == "gate" and "state" in line]
