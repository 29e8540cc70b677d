"""A client of the contract: paho 2, a session that outlives it, manual acknowledgement.

It speaks MQTT 5; to a broker that knows only 3.1.1 the other lines are put in that version, so
that one lack does not hide the rest.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

POLL_S = 0.01
MQTT_5 = MQTTProtocolVersion.MQTTv5
MQTT_3 = MQTTProtocolVersion.MQTTv311


def until(true: Callable[[], bool], timeout_s: float = 3.0) -> bool:
    """Return whether `true()` came to hold within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


class Probe:
    """One connection; `with` closes it, `cut` tears it so that the broker must notice itself.

    Args:
        port: the broker's, on 127.0.0.1.
        user: username, and client id unless `client_id` says otherwise.
        acknowledge: whether received messages are acknowledged.
        protocol: the version that it speaks.
    """

    def __init__(
        self,
        port: int,
        user: str,
        password: str,
        *,
        client_id: str = "",
        acknowledge: bool = True,
        will: tuple[str, bytes] | None = None,
        expiry_s: int = 300,
        protocol: MQTTProtocolVersion = MQTT_5,
    ) -> None:
        self.port = port
        self.messages: list[tuple[str, bytes]] = []
        self.retained: list[tuple[str, bytes]] = []
        self.reason = ""
        self.refused = False
        self.acknowledge = acknowledge
        self._expiry_s = expiry_s
        self._protocol = protocol
        self._connected = threading.Event()
        self._granted: dict[int | None, list[Any]] = {}
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id or user,
            clean_session=None if protocol == MQTT_5 else False,
            protocol=protocol,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        self.client.username_pw_set(user, password)
        if will:
            self.client.will_set(will[0], will[1], qos=1, retain=True)
        self.client.max_queued_messages_set(0)
        self.client.max_inflight_messages_set(100)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message

    def open(self, timeout_s: float = 5.0) -> Self:
        """Connect; look at `connected` and `refused` for the answer."""
        try:
            if self._protocol == MQTT_5:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                properties.SessionExpiryInterval = self._expiry_s
                self.client.connect(
                    "127.0.0.1", self.port, 30, clean_start=False, properties=properties
                )
            else:
                self.client.connect("127.0.0.1", self.port, 30)
        except OSError:
            self.refused = True
            return self
        self.client.loop_start()
        until(lambda: self.connected or self.refused, timeout_s)
        return self

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client."""
        return self._connected.is_set()

    def subscribe(self, *topics: str, timeout_s: float = 3.0) -> list[bool]:
        """Subscribe with QoS 1; returns per topic whether it was granted."""
        if self._protocol == MQTT_5:
            options = SubscribeOptions(qos=1)
            done, mid = self.client.subscribe([(topic, options) for topic in topics])
        else:
            done, mid = self.client.subscribe([(topic, 1) for topic in topics])
        if done != 0 or not until(lambda: mid in self._granted or not self.connected, timeout_s):
            return [False for _ in topics]
        return [not code.is_failure for code in self._granted.get(mid, [])] or [False] * len(topics)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, wait: bool = True
    ) -> bool:
        """Publish with QoS 1; returns whether the broker answered with PUBACK."""
        info = self.client.publish(topic, payload, qos=1, retain=retain)
        return until(info.is_published, 3.0) if wait and info.rc == 0 else info.rc == 0

    def has(self, topic: str, payload: bytes) -> bool:
        """Return whether this message has come."""
        return (topic, payload) in self.messages

    def cut(self) -> None:
        """Lose the connection without a DISCONNECT (RST), as when a cable is pulled."""
        sock = self.client.socket()
        if isinstance(sock, socket.socket):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self.client.loop_stop()

    def close(self) -> None:
        """Disconnect properly."""
        self.client.disconnect()
        self.client.loop_stop()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _on_connect(
        self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        self.reason = str(reason)
        if reason.is_failure:
            self.refused = True
        else:
            self._connected.set()

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        self.reason = self.reason or str(reason)
        if not self.connected:
            self.refused = True
        self._connected.clear()

    def _on_subscribe(
        self, _client: Client, _data: Any, mid: int, codes: list[Any], _properties: Any
    ) -> None:
        self._granted[mid] = codes

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        entry = (message.topic, bytes(message.payload))
        self.messages.append(entry)
        if message.retain:
            self.retained.append(entry)
        if self.acknowledge:
            client.ack(message.mid, message.qos)
