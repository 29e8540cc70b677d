"""The MQTT session, on Debian's Mosquitto and on the embedded broker's rules alike."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_sync.mqtt_session import MqttSession, Will, parse_url, require
from edgeml.errors import RemoteError, UserError
from tests.e2e.loop import _free_port, until

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    if MOSQUITTO is None:
        assert os.environ.get("CI") != "true", "Mosquitto is missing: apt-get install mosquitto"
        pytest.skip("Mosquitto is not installed: apt-get install mosquitto")
    port = _free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen(
        [MOSQUITTO, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        yield f"mqtt://127.0.0.1:{port}"
        process.terminate()


class Client:
    """A session and what it received."""

    def __init__(self, url: str, name: str, *topics: str, will: Will | None = None) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.connects = 0
        self.session = MqttSession(
            url,
            name,
            on_message=lambda topic, payload: self.received.append((topic, payload)),
            on_connect=self._connected,
            subscriptions=topics,
            will=will,
        )
        self.session.start()

    def _connected(self) -> None:
        self.connects += 1


def test_messages_go_both_ways_and_a_cut_client_leaves_its_will(broker: str) -> None:
    fleet = Client(broker, "fleet", "up/#")
    device = Client(broker, "cam", "down/#", will=Will(topic="up/presence", payload=b"gone"))
    require(fleet.session, 10)
    require(device.session, 10)
    assert device.session.publish("up/state", b"1")
    assert fleet.session.publish("down/ack", b"2")
    until("both messages", lambda: fleet.received and device.received, 10)
    assert fleet.received == [("up/state", b"1")]
    assert device.received == [("down/ack", b"2")]
    socket = device.session._client.socket()
    assert socket is not None
    socket.shutdown(2)
    until("the will", lambda: ("up/presence", b"gone") in fleet.received, 15)
    until("the device to come back by itself", lambda: device.connects > 1, 30)
    device.session.close()
    fleet.session.close()


def test_what_came_while_a_client_was_away_waits_for_it(broker: str) -> None:
    fleet = Client(broker, "fleet")
    require(fleet.session, 10)
    device = Client(broker, "cam", "down/#")
    require(device.session, 10)
    device.session.close()
    until("the device to be gone", lambda: not device.session.connected, 10)
    fleet.session.publish("down/desired", b"new")
    again = Client(broker, "cam", "down/#")
    until("the message", lambda: again.received == [("down/desired", b"new")], 15)
    again.session.close()
    fleet.session.close()


def test_nothing_is_taken_while_there_is_no_broker() -> None:
    lonely = Client(f"mqtt://127.0.0.1:{_free_port()}", "cam")
    assert not lonely.session.publish("up/state", b"1")
    with pytest.raises(RemoteError, match="cannot be reached"):
        require(lonely.session, 0.3)
    lonely.session.close()


@pytest.mark.parametrize("url", ["", "http://x", "mqtt://", "mqtt://x:port", "mqtt://x:99999"])
def test_what_is_no_brokers_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="no broker's address"):
        parse_url(url)
