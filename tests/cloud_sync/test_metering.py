"""What MQTT costs is counted as HTTP's cost is: by the kernel, until after the connection."""

from contextlib import closing
from pathlib import Path

import httpx
import pytest

from cloud_sync.metering import Meter, Traffic
from cloud_sync.mqtt_session import MqttSession
from tests.cloud_sync.registries import DATA, DIGEST, FaultyRegistry, running
from tests.e2e.loop import until
from tests.sim.mosquitto import Mosquitto


def test_what_mqtt_sends_and_receives_is_counted(tmp_path: Path) -> None:
    meter, got = Meter(), []
    broker = Mosquitto(tmp_path)
    session = MqttSession(
        f"mqtt://127.0.0.1:{broker.port}",
        "cam-1",
        on_message=lambda _topic, payload: got.append(payload),
        subscriptions=["a"],
        meter=meter,
    )
    session.start()
    try:
        assert session.wait_connected(30)
        assert session.publish("a", bytes(100_000))
        until("the message", lambda: got, 30)
        during = meter.traffic()
    finally:
        session.close()
        broker.stop()
    assert 100_000 < during.sent < 120_000
    assert 100_000 < during.received < 120_000
    assert meter.traffic().total >= during.total
    assert meter.buffered == 0, "nothing is held open"


def test_a_client_s_connections_are_counted_over_its_life_and_then_let_go() -> None:
    meter = Meter()
    with running(FaultyRegistry()) as registry:
        with closing(httpx.Client(trust_env=False)) as client:
            meter.watch_http(client)
            for _ in range(2):
                client.get(f"{registry.url}/v2/m/blobs/{DIGEST}")
            assert meter.traffic().received > 2 * len(DATA)
        total = meter.traffic()
        assert meter.traffic() == total
    assert meter.buffered == 0


def test_a_connection_that_cannot_be_made_costs_nothing() -> None:
    meter = Meter()
    with closing(httpx.Client(trust_env=False)) as client:
        meter.watch_http(client)
        with pytest.raises(httpx.ConnectError):
            client.get("http://127.0.0.1:9/")
        assert meter.traffic() == Traffic()


def test_what_is_no_socket_is_not_counted() -> None:
    meter = Meter()
    meter.watch(object())
    meter.end(object())
    assert meter.traffic() == Traffic()
