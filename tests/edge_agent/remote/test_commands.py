"""Commands to a real agent process: over MQTT and HTTPS, through kills, once."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from cloud_sync.messages import Down, RecordKind, SecurityRecord, topic
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, Scene
from tests.edge_agent.test_link import BrokerThread, Wire
from tests.sim.fleet import SimFleet


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    running = BrokerThread()
    yield running
    running.close()


@pytest.fixture
def wired(tmp_path: Path, broker: BrokerThread) -> Iterator[tuple[Scene, Wire]]:
    with SimFleet(tmp_path / "registry", broker=broker.start()) as fleet:
        wire = Wire(fleet)
        yield Scene(tmp_path, fleet), wire
        wire.session.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with SimFleet(tmp_path / "registry") as fleet:
        yield Scene(tmp_path, fleet)


def results(scene: Scene) -> dict[str, str]:
    return {result.command: str(result.status) for result in scene.device.results()}


def test_over_mqtt_each_kind_is_done_and_brings_what_it_should(wired: tuple[Scene, Wire]) -> None:
    scene, wire = wired
    scene.fleet.want(DEVICE, {}, scene.configuration)
    with AgentProcess(scene.config) as agent:
        log = scene.data / "agent.log"
        eventually(lambda: wire.hellos and "configuration 1 committed" in log.read_text())
        for kind in ("snapshot", "log-tail", "diagnostics", "restart", "dance"):
            wire.session.publish(topic(DEVICE, Down.COMMAND), scene.fleet.command(DEVICE, kind))
        eventually(lambda: len(results(scene)) == 5, what="five answers")
        agent.stop()
    said = {result.kind: result for result in scene.device.results()}
    assert {kind: str(result.status) for kind, result in said.items()} == {
        "snapshot": "done",
        "log-tail": "done",
        "diagnostics": "done",
        "restart": "failed",
        "dance": "refused",
    }
    picture = np.frombuffer(base64.b64decode(said["snapshot"].content), np.uint8)
    image = cv2.imdecode(picture, cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (24, 24, 3)
    assert f"{DEVICE} is up" in said["log-tail"].content
    found = msgspec.json.decode(said["diagnostics"].content)
    assert {"runtime", "disk"} <= {finding["check"] for finding in found["findings"]}
    assert "No supervisor" in said["restart"].reason


def test_without_a_broker_https_brings_them(scene: Scene) -> None:
    scene.device.commands.append(scene.fleet.command(DEVICE, "log-tail"))
    with AgentProcess(scene.config) as agent:
        eventually(lambda: set(results(scene).values()) == {"done"})
        agent.stop()


@pytest.mark.parametrize(
    ("failpoint", "status"),
    [
        ("command-journalled", "done"),
        ("command-started", "interrupted"),
        ("command-answered", "done"),
        ("command-told", "done"),
    ],
)
def test_a_command_survives_a_kill_at_each_step_and_is_answered_once(
    scene: Scene, failpoint: str, status: str
) -> None:
    envelope = scene.fleet.command(DEVICE, "log-tail")
    scene.device.commands.append(envelope)
    with AgentProcess(scene.config, failpoint=f"{failpoint}:kill") as agent:
        eventually(lambda: agent.process.poll() is not None, what=f"the kill at {failpoint}")
    with AgentProcess(scene.config) as agent:
        eventually(lambda: results(scene), what="the answer")
        asked = len(scene.device.hellos)
        eventually(lambda: len(scene.device.hellos) > asked + 1, what="it is delivered again")
        agent.stop()
    assert {str(result.status) for result in scene.device.results()} == {status}
    assert (scene.data / "agent.log").read_text().count("command-1 (log-tail): done") <= 1


def test_an_expired_one_is_refused_and_reported(wired: tuple[Scene, Wire]) -> None:
    scene, wire = wired
    with AgentProcess(scene.config) as agent:
        eventually(lambda: wire.hellos)
        late = scene.fleet.command(DEVICE, "log-tail", expires_in_s=-5.0)
        wire.session.publish(topic(DEVICE, Down.COMMAND), late)
        eventually(lambda: scene.device.of(RecordKind.SECURITY), what="the report")
        eventually(lambda: results(scene), what="the answer")
        agent.stop()
    assert set(results(scene).values()) == {"expired"}
    [record] = scene.device.of(RecordKind.SECURITY)
    assert msgspec.json.decode(record, type=SecurityRecord).kind == "expired-command"


def test_what_could_not_be_kept_is_not_acknowledged_and_comes_again(
    wired: tuple[Scene, Wire],
) -> None:
    scene, wire = wired
    in_the_way = scene.data / "commands.db"
    in_the_way.mkdir()
    with AgentProcess(scene.config) as agent:
        eventually(lambda: wire.hellos)
        wire.session.publish(topic(DEVICE, Down.COMMAND), scene.fleet.command(DEVICE, "log-tail"))
        log = scene.data / "agent.log"
        eventually(lambda: "is not acknowledged" in log.read_text(), what="the refusal")
        in_the_way.rmdir()
        agent.stop()
    with AgentProcess(scene.config) as agent:
        eventually(lambda: set(results(scene).values()) == {"done"}, what="it came again")
        agent.stop()


SUPERVISED = """
import sys
from edge_agent import supervisor
supervisor.PAUSE_S = (0.1, 0.2)
command = [sys.executable, "-m", "edge_agent.service", "--config", sys.argv[1]]
sys.exit(supervisor.supervise(command))
"""


def test_a_supervised_agent_is_restarted_once_and_nothing_is_blamed(scene: Scene) -> None:
    scene.device.commands.append(scene.fleet.command(DEVICE, "restart"))
    log = scene.data / "supervised.log"
    with log.open("ab") as stream:
        supervised = subprocess.Popen(
            [sys.executable, "-c", SUPERVISED, str(scene.config)], stdout=stream, stderr=stream
        )
    try:
        eventually(lambda: set(results(scene).values()) == {"done"}, 60, "the answer")
        assert log.read_text().count(f"{DEVICE} is up") == 2
        asked = len(scene.device.hellos)
        eventually(lambda: len(scene.device.hellos) > asked + 1, 60, "it is delivered again")
        assert log.read_text().count(f"{DEVICE} is up") == 2
    finally:
        supervised.terminate()
        supervised.wait(30)
    assert "The agent ends, to be started again." in log.read_text()
