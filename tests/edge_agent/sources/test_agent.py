"""A real agent whose camera on the network falls silent, beside a folder that goes on."""

import json
from typing import Any

import msgspec

from cloud_sync.messages import Configuration, Phase, ReportedSource
from tests.edge_agent.processes import RUN, AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene
from tests.edge_agent.sources.http_camera import HttpCamera
from tests.edge_agent.sources.seen import config

IMPATIENT = f"from edge_agent import configuration_trial as c; c.PATIENCE_S = 1.5\n{RUN}"


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


def test_a_camera_that_nobody_switched_on_does_not_hold_up_a_configuration(scene: Scene) -> None:
    gate = config("rtsp://viewer:secret@127.0.0.1:9/1", name="gate", model=MODEL)
    scene.want(scene.release("1.0.0"))
    with AgentProcess(scene.config, code=IMPATIENT) as agent:
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED)
        eventually(lambda: scene.device.reported.config_version == 1, what="the first")
        both = (*scene.configuration.sources, gate)
        scene.configure(Configuration(config_version=2, sources=both, telemetry_every_s=0.5))
        eventually(lambda: scene.device.reported.config_version == 2, what="the second")
        eventually(lambda: _reported(scene, "gate").state == "lost", what="said to the fleet")
        said = scene.device.reported
        assert said.config_error == ""
        assert said.sources["gate"].model == MODEL
        assert "The stream rtsp://127.0.0.1:9/1 cannot be opened" in said.sources["gate"].reason
        assert said.sources["belt"].state == "running"
        count = len(lines(scene))
        eventually(lambda: any(line["source"] == "belt" for line in lines(scene)[count:]))
        missing = config("file:///no/such.mp4", name="film", model=MODEL)
        scene.configure(Configuration(config_version=3, sources=(*both, missing)))
        eventually(lambda: "'film'" in scene.device.reported.config_error, what="refused")
        assert scene.device.reported.config_version == 2
        assert agent.stop()[0] == 0
    log = (scene.config.parent / "agent.log").read_text()
    assert "secret" not in log
    assert "Connection refused" not in log  # FFmpeg's own words, at every try


def test_the_fleet_hears_of_a_source_that_stalls_and_of_its_return(scene: Scene) -> None:
    with HttpCamera() as camera:
        gate = config(camera.url, name="gate", model=MODEL)
        scene.configuration = msgspec.structs.replace(scene.configuration, sources=(gate,))
        scene.want(scene.release("1.0.0"))
        with AgentProcess(scene.config, code=IMPATIENT) as agent:
            eventually(lambda: _reported(scene, "gate").state == "running")
            camera.mode = "silent"
            eventually(lambda: _reported(scene, "gate").state == "stalled")
            stalled = _reported(scene, "gate")
            assert "No frame for" in stalled.reason
            eventually(lambda: _reported(scene, "gate").seconds > stalled.seconds)
            camera.mode = "good"
            eventually(lambda: _reported(scene, "gate").state == "running")
            assert _reported(scene, "gate").reason == ""
            assert agent.stop()[0] == 0


def _reported(scene: Scene, source: str) -> ReportedSource:
    nothing = ReportedSource(model="", state="")
    return scene.device.reported.sources.get(source, nothing)


def _states(scene: Scene) -> list[str]:
    return [line["state"] for line in lines(scene) if line["source"] == "gate" and "state" in line]
