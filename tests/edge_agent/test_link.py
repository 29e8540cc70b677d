"""The link over a real broker: MQTT carries what it can, HTTPS is the truth."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cloud_sync.messages import Down, Hello, Phase, Presence, RecordKind, Up, decode, topic
from cloud_sync.mqtt_session import MqttSession, require
from cloud_sync.trust import PayloadType, key_id, open_envelope
from edge_agent import link
from fleet.broker import SUPERUSER, EmbeddedBroker, start
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, MODEL, Scene
from tests.sim.fleet import SimFleet


class Anyone:
    """Credentials under which everyone is who they say."""

    def check(self, username: str, password: str) -> bool:
        return bool(username and password)


class BrokerThread:
    """The embedded broker in a thread of the test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._broker: EmbeddedBroker | None = None

    def start(self, port: int = 0) -> str:
        making = asyncio.run_coroutine_threadsafe(start("127.0.0.1", port, Anyone()), self._loop)
        self._broker = making.result(10)
        return self._broker.url

    def stop(self) -> None:
        if self._broker is not None:
            asyncio.run_coroutine_threadsafe(self._broker.stop(), self._loop).result(10)
            self._broker = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Wire:
    """The fleet's end of the broker: stores what comes, answers with acks, gives hints."""

    def __init__(self, fleet: SimFleet) -> None:
        self.fleet = fleet
        self.hellos: list[Hello] = []
        self.presence: list[bool] = []
        self.batches = 0
        self.session = MqttSession(
            fleet.broker,
            SUPERUSER,
            username=SUPERUSER,
            password="p",
            on_message=self._received,
            subscriptions=["edgeml/v1/+/up/#"],
        )
        self.session.start()
        require(self.session, 10)

    def hint(self) -> None:
        """Tell the device what it shall be."""
        self.session.publish(topic(DEVICE, Down.DESIRED), self.fleet.signed(DEVICE) or b"")

    def _received(self, name: str, payload: bytes) -> None:
        if name.endswith(Up.PRESENCE):
            self.presence.append(decode(payload, Presence).online)
        elif name.endswith(Up.HELLO):
            key = self.fleet.device(DEVICE).key
            opened = open_envelope(payload, {key_id(key): key}, PayloadType.HELLO)
            self.hellos.append(decode(opened, Hello))
        else:
            self.batches += 1
            self.session.publish(topic(DEVICE, Down.ACK), self.fleet.store(DEVICE, payload))


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


def test_over_mqtt_an_update_needs_https_for_its_blobs_alone(wired: tuple[Scene, Wire]) -> None:
    scene, wire = wired
    with AgentProcess(scene.config) as agent:
        eventually(lambda: wire.hellos and scene.device.hellos, what="both hellos")
        assert wire.hellos[0].device == DEVICE
        asked = len(scene.device.hellos)

        def posts() -> list[str]:
            return [r for r in scene.fleet.requests if r.endswith("/records")]

        eventually(lambda: len(posts()) == 1, what="the question for the time")
        scene.want(scene.release("1.0.0"))
        wire.hint()
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED)
        assert wire.batches > 0
        assert len(scene.device.hellos) == asked
        assert len(posts()) == 1
        agent.stop()
    eventually(lambda: wire.presence[-1:] == [False], what="the goodbye")
    assert wire.presence[0] is True


def test_a_device_that_is_killed_is_reported_by_the_broker(wired: tuple[Scene, Wire]) -> None:
    scene, wire = wired
    with AgentProcess(scene.config) as agent:
        eventually(lambda: wire.presence == [True])
        agent.kill()
    eventually(lambda: wire.presence == [True, False], what="the will")


def test_forged_and_broken_messages_change_nothing(wired: tuple[Scene, Wire]) -> None:
    scene, wire = wired
    with AgentProcess(scene.config) as agent:
        eventually(lambda: wire.hellos)
        scene.want(scene.release("1.0.0"))
        real, scene.fleet.director = scene.fleet.director, SimFleet(scene.folder / "x").director
        for payload in (scene.fleet.signed(DEVICE), b"", b"{", b"\xff" * 100, b"[]"):
            wire.session.publish(topic(DEVICE, Down.DESIRED), payload or b"")
            wire.session.publish(topic(DEVICE, Down.ACK), payload or b"")
        scene.fleet.director = real
        wire.hint()
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED)
        agent.stop()


def test_when_the_broker_goes_https_carries_on(
    wired: tuple[Scene, Wire], broker: BrokerThread
) -> None:
    scene, wire = wired
    with AgentProcess(scene.config) as agent:
        eventually(lambda: wire.hellos)
        broker.stop()
        scene.want(scene.release("1.0.0"))
        eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, 60)
        assert [r for r in scene.fleet.requests if r.endswith("/records")]
        agent.stop()


def test_every_kind_of_record_has_a_topic_to_go_up_on() -> None:
    carried = [kind for kinds in link._TOPICS.values() for kind in kinds]
    assert sorted(carried) == sorted(RecordKind)


def test_a_state_of_another_version_is_refused_said_and_not_asked_for_in_a_loop(
    wired: tuple[Scene, Wire],
) -> None:
    scene, wire = wired
    with AgentProcess(scene.config) as agent:
        eventually(lambda: wire.hellos and scene.device.hellos)
        wanted = scene.fleet.want(DEVICE, {}, scene.configuration)
        scene.device.wanted = msgspec.structs.replace(wanted, version=2)
        wire.hint()
        log = scene.data / "agent.log"
        eventually(lambda: "version 2 was refused" in log.read_text(), what="the sentence")
        before = len(scene.device.hellos)
        scene.fleet.want(DEVICE, {}, scene.configuration)
        wire.hint()
        eventually(lambda: "configuration 1 committed" in log.read_text(), what="the next state")
        assert len(scene.device.hellos) <= before + 1
        agent.stop()
