"""Mosquitto and PostgreSQL as processes for benchmarks, and bare clients of the broker."""

import contextlib
import getpass
import os
import pwd
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fleet.ingest import RECEIVE_MAXIMUM

PATIENCE_S = 120.0


def until_ready(ready: Callable[[], bool]) -> None:
    """Wait until something is so, looking every millisecond."""
    end = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.001)


def held(broker: int, name: str, filters: Sequence[str], messages: list[tuple[str, bytes]]) -> None:
    """Have the broker hold messages for a consumer that is away."""
    client = client_of(name, broker, lambda _message: None)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.subscribe([(one, 1) for one in filters])
    assert subscribed.wait(PATIENCE_S)
    client.disconnect()
    client.loop_stop()
    publisher = client_of(f"{name}-publisher", broker, lambda _message: None)
    sent = [publisher.publish(where, payload, qos=1) for where, payload in messages]
    for one in sent:
        one.wait_for_publish(PATIENCE_S)
    publisher.disconnect()
    publisher.loop_stop()


def forgotten(broker: int, name: str) -> None:
    """Have the broker forget a consumer: for one that stays it would hold all that comes later."""
    client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTv5)
    client.connect("127.0.0.1", broker, clean_start=True)
    client.loop_start()
    while not client.is_connected():
        time.sleep(0.001)
    client.disconnect()
    client.loop_stop()


def client_of(name: str, broker: int, take: Callable[[MQTTMessage], None]) -> Client:
    """A connected paho client whose session stays at the broker, and that queues without bound."""
    client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTv5)
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(RECEIVE_MAXIMUM)
    client.on_message = lambda _client, _data, message: take(message)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    client.connect("127.0.0.1", broker, clean_start=False, properties=properties)
    client.loop_start()
    while not client.is_connected():
        time.sleep(0.001)
    return client


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """Mosquitto on loopback, anonymous, that holds without bound; gives its port."""
    port = _free_port()
    folder.mkdir()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"user {getpass.getuser()}\nlistener {port} 127.0.0.1\nallow_anonymous true\n"
        f"max_inflight_messages {RECEIVE_MAXIMUM}\nmax_queued_messages 0\n"
    )
    process = subprocess.Popen(
        ["mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until_ready(lambda: _listens(port))
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Debian's PostgreSQL as it comes, durable, in a temporary folder; gives its URL."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, user.pw_uid, user.pw_gid)
        as_user: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid}
        as_user = (as_user if os.geteuid() == 0 else {}) | {
            "cwd": name,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        data = f"{name}/data"
        login = ["-U", "fleet", "-A", "trust", "-E", "UTF8", "--locale", "C"]
        subprocess.run([str(binaries / "initdb"), "-D", data, *login], check=True, **as_user)
        where = ["-h", "127.0.0.1", "-p", str(port), "-k", ""]
        process = subprocess.Popen([str(binaries / "postgres"), "-D", data, *where], **as_user)
        ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        try:
            until_ready(lambda: subprocess.run(ready, check=False).returncode == 0)
            yield f"postgresql+psycopg://fleet@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
