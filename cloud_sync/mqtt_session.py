"""An MQTT 5 session on paho, for device and fleet alike.

`clean_start` is always false and the session outlives the connection; an inbound message is
acknowledged after its handler returned; reconnects back off with jitter. A thread of paho's
own does the network; handlers run on it and must be quick.
"""

import random
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgeml.errors import RemoteError, UserError

SESSION_EXPIRY_S = 7 * 86400
KEEPALIVE_S = 30
MAX_INFLIGHT = 100
MAX_QUEUED = 1000
RECONNECT_S = (1, 60)

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Will(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker publishes, retained, when the connection is lost."""

    topic: str
    payload: bytes


class MqttSession:
    """One client's session; create it, then `start`.

    Args:
        url: `mqtt://host:port` or `mqtts://host:port`.
        client_id: the session's name at the broker.
        username, password: credentials, empty where a certificate speaks.
        will: published by the broker when this client is gone.
        on_message: called with topic and payload.
        on_connect: called after each connect, when the subscriptions are made.
        subscriptions: topic filters, all with QoS 1.
        tls: files (ca, certificate, key) for mutual TLS.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        username: str = "",
        password: str = "",
        will: Will | None = None,
        on_message: Callable[[str, bytes], None],
        on_connect: Callable[[], None] = lambda: None,
        subscriptions: Sequence[str] = (),
        tls: tuple[Path, Path | None, Path | None] | None = None,
    ) -> None:
        self._host, self._port, secure = parse_url(url)
        self._on_message = on_message
        self._on_connect = on_connect
        self._subscriptions = tuple(subscriptions)
        self._connected = threading.Event()
        self.last_error = ""
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5, manual_ack=True)
        if username:
            client.username_pw_set(username, password or None)
        if secure:
            ca, certificate, key = tls or (None, None, None)
            context = ssl.create_default_context(cafile=ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if certificate:
                context.load_cert_chain(certificate, key)
            client.tls_set_context(context)
        if will:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.max_inflight_messages_set(MAX_INFLIGHT)
        client.max_queued_messages_set(MAX_QUEUED)
        low, high = RECONNECT_S
        # Devices that lost one broker together must not come back together.
        client.reconnect_delay_set(low, random.randint(high // 2, high))  # noqa: S311
        client.on_connect = self._connected_now
        client.on_disconnect = self._disconnected_now
        client.on_message = self._received
        self._client = client

    def start(self) -> None:
        """Begin to connect, in the background, for as long as it takes."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        self._client.connect_async(
            self._host, self._port, KEEPALIVE_S, clean_start=False, properties=properties
        )
        self._client.loop_start()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client."""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the broker; returns whether it answered in time."""
        return self._connected.wait(timeout_s)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand a message over with QoS 1; returns whether it was taken.

        That it was taken is no proof that it arrives: the outbox waits for the fleet's word.
        """
        if not self.connected:
            return False
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        return info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def close(self) -> None:
        """Disconnect properly; the broker publishes no will."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connected_now(
        self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if reason.is_failure:
            self.last_error = str(reason)
            return
        if self._subscriptions:
            options = SubscribeOptions(qos=1)
            self._client.subscribe([(topic, options) for topic in self._subscriptions])
        self._connected.set()
        self._on_connect()

    def _disconnected_now(
        self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if self.connected:
            self.last_error = str(reason)
        self._connected.clear()

    def _received(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        self._on_message(message.topic, bytes(message.payload))
        client.ack(message.mid, message.qos)


def parse_url(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken.

    >>> parse_url("mqtts://broker.example")
    ('broker.example', 8883, True)

    Raises:
        UserError: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UserError(
            f"{url[:200]!r} is no broker's address.", fix="Write mqtt://host:port or mqtts://host."
        )
    return parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts"


def require(session: MqttSession, timeout_s: float) -> None:
    """Wait for the broker.

    Raises:
        RemoteError: it did not accept this client in time.
    """
    if not session.wait_connected(timeout_s):
        raise RemoteError(
            "The MQTT broker cannot be reached.", why=session.last_error or "It did not answer."
        )
