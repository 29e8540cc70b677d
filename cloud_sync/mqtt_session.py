"""An MQTT 5 session on paho, for device and fleet alike.

`clean_start` is always false and the session outlives the connection; an inbound message is
acknowledged after its handler returned, so that one which came as this process died comes again;
what is in flight is bounded in both directions; reconnects back off with jitter. A thread of
paho's own does the network; handlers run on it and must be quick. `ws://` and `wss://` carry the
same through firewalls and proxies that let only the web pass.
"""

import contextlib
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from cloud_sync.address import require_private
from cloud_sync.messages import MAX_MESSAGE_BYTES
from cloud_sync.mqtt_tls import DATES, refusal_of, tls_context
from cloud_sync.trust.tls import judge_dates_by
from edgeml.errors import RemoteError, TrustError, UserError

if TYPE_CHECKING:
    from cloud_sync.metering import Meter

log = logging.getLogger(__name__)

SESSION_EXPIRY_S = 7 * 86400
KEEPALIVE_S = 30
MAX_INFLIGHT = 100
MAX_QUEUED = 1000
RECONNECT_S = (1.0, 60.0)
CLOSE_S = 3.0
_ROOM_S = 0.01
_FULL = MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
# An envelope is a message in base64 with its signature, a packet an envelope with its topic.
MAX_PACKET_BYTES = 2 * MAX_MESSAGE_BYTES + (64 << 10)

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_SECURE = frozenset({"mqtts", "wss"})
_WEB_PATH = "/mqtt"
# The fixed header, the topic's length, the packet id and what properties we send.
_PACKET_OVERHEAD = 32

OnDelivery = Callable[[str, bytes, Callable[[], None]], None]


class Will(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker publishes, retained, when the connection is lost."""

    topic: str
    payload: bytes


class NotTaken(Exception):  # noqa: N818 -- an answer more than a fault
    """Raised by a handler that could not keep a message: it is not acknowledged.

    The broker delivers it again on the next connection.
    """


class MqttSession:
    """One client's session; create it, then `start`.

    Args:
        url: `mqtt://host:port` or `mqtts://host:port`, `ws://` or `wss://host:port/path` for
            websockets (the path is `/mqtt` where there is none).
        client_id: the session's name at the broker.
        username, password: credentials, empty where a certificate speaks.
        will: published by the broker when this client is gone.
        on_message: called with topic and payload; may raise `NotTaken`.
        on_delivery: called in its place with a third argument, to be called, on any thread and in
            the order of the messages, when the broker need not keep the message any more.
        receive_maximum: how many messages the broker gives before the first is acknowledged.
        on_connect: called after each connect, when the subscriptions are made.
        subscriptions: topic filters, all with QoS 1.
        tls: files (ca, certificate, key): the CA that must have issued the broker's certificate
            (None: those that the system trusts), and for mutual TLS this client's own.
        now: the time by which certificates are judged, None where there is none; without it
            the wall clock is.
        meter: counts what the connections cost.
        expires_s: how long the broker keeps the session of a client that is gone.
        patience_s: for how long a patient `publish` waits for room while the broker takes what
            was published before; on the session's own thread it does not.

    Attributes:
        last_error: why there is no connection, as far as that is known.
        refusal: set while the broker's certificate is one that this client does not accept.

    Raises:
        UserError: the URL is none, or leads off this machine without TLS.
        TrustError: the files for TLS cannot be read.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        username: str = "",
        password: str = "",
        will: Will | None = None,
        on_message: Callable[[str, bytes], None] = lambda _topic, _payload: None,
        on_delivery: OnDelivery | None = None,
        receive_maximum: int = MAX_INFLIGHT,
        on_connect: Callable[[], None] = lambda: None,
        subscriptions: Sequence[str] = (),
        tls: tuple[Path | None, Path | None, Path | None] | None = None,
        now: Callable[[], float | None] | None = None,
        meter: "Meter | None" = None,
        expires_s: int = SESSION_EXPIRY_S,
        patience_s: float = 0.0,
    ) -> None:
        self._expires_s = expires_s
        self._patience_s = patience_s
        self._full_since: float | None = None
        self._host, self._port, self._secure = parse_url(url)
        parts = urlsplit(url)
        require_private(parts.scheme, self._host, of="broker")
        on_the_web = parts.scheme in {"ws", "wss"}
        self._ca = tls[0] if tls else None
        self._on_message = on_message
        self._on_delivery = on_delivery
        self._receive_maximum = receive_maximum
        self._connections = 0
        self._on_connect = on_connect
        self._subscriptions = tuple(subscriptions)
        self._sending = threading.Lock()  # nobody sends while paho's sockets are closed
        self._connected = threading.Event()
        self._gone = threading.Event()
        self._gone.set()
        self._answered = False
        self._closing = False
        self.last_error = ""
        self.refusal: TrustError | None = None
        self._largest = MAX_PACKET_BYTES
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTv5,
            transport="websockets" if on_the_web else "tcp",
            manual_ack=True,
        )
        if on_the_web:
            client.ws_set_options(path=parts.path if parts.path not in {"", "/"} else _WEB_PATH)
        if username:
            client.username_pw_set(username, password or None)
        if self._secure:
            context = tls_context(*(tls or (None, None, None)))
            client.tls_set_context(context if now is None else judge_dates_by(context, now))
        if meter is not None:
            client.on_socket_open = lambda _client, _data, opened: meter.watch(opened)
            client.on_socket_close = lambda _client, _data, closing: meter.end(closing)
        if will:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.max_inflight_messages_set(MAX_INFLIGHT)
        client.max_queued_messages_set(MAX_QUEUED)
        # Devices that lost one broker together must not come back together, at none of the
        # doublings of this pause. It is declared as a whole number, and a fraction will do.
        low, high = (random.uniform(0.5, 1.5) * pause for pause in RECONNECT_S)  # noqa: S311
        client.reconnect_delay_set(low, high)  # type: ignore[arg-type]
        client.on_connect = self._connected_now
        client.on_connect_fail = self._connect_failed
        client.on_disconnect = self._disconnected_now
        client.on_subscribe = self._subscribed
        client.on_message = self._received
        self._client = client

    def start(self) -> None:
        """Begin to connect, in the background, for as long as it takes."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._expires_s
        properties.ReceiveMaximum = self._receive_maximum
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        self._client.connect_async(
            self._host, self._port, KEEPALIVE_S, clean_start=False, properties=properties
        )
        self._client.loop_start()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client and its subscriptions are made."""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the broker; returns whether it answered in time."""
        return self._connected.wait(timeout_s)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expires_s: float | None = None,
        patient: bool = False,
    ) -> bool:
        """Hand a message over with QoS 1; returns whether it was taken.

        That it was taken is no proof that it arrives: the outbox waits for the fleet's word.
        What is larger than the broker takes is not taken: it would end the connection.

        Args:
            topic: where to.
            payload: what.
            retain: whether the broker keeps it for who subscribes later.
            expires_s: how long the broker may keep it for who is away.
            patient: whether to wait for room, where there is none, as long as the session may.
        """
        if not self.connected:
            return False
        if len(payload) + len(topic.encode()) + _PACKET_OVERHEAD > self._largest:
            self._note(f"A message of {len(payload)} bytes is larger than {self._address} takes.")
            return False
        properties = None
        if expires_s is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = max(1, round(expires_s))
        while (result := self._handed(topic, payload, retain, properties)) is _FULL:
            if not (patient and self._may_wait()):
                return False
            time.sleep(_ROOM_S)
        return result is MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handed(
        self, topic: str, payload: bytes, retain: bool, properties: Properties | None
    ) -> MQTTErrorCode:
        with self._sending, contextlib.suppress(OSError):
            if self.connected:
                result = self._client.publish(topic, payload, 1, retain, properties).rc
                if result is not _FULL:
                    self._full_since = None
                return result
        return MQTTErrorCode.MQTT_ERR_NO_CONN

    def _may_wait(self) -> bool:
        """Whether to wait for room, which the thread that makes it cannot."""
        now, since = time.monotonic(), self._full_since  # another thread may find room meanwhile
        if since is None:
            self._full_since = since = now
        own = threading.current_thread() is self._client._thread  # noqa: SLF001 -- as in close
        return not own and now < since + self._patience_s

    def close(self) -> None:
        """Disconnect properly, so that the broker publishes no will; takes a bounded time."""
        self._closing = True
        self._client.disconnect()
        if not self._gone.wait(CLOSE_S):
            # The broker does not read any more; paho would wait for it.
            connection = self._client.socket()
            connection = getattr(connection, "_socket", connection)  # a websocket wraps its own
            if isinstance(connection, socket.socket):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()
        with self._sending:
            # Its thread has ended; left to the garbage collector, they would be found open.
            self._client._reset_sockets()  # noqa: SLF001 -- paho has no other word for it
            self._connected.clear()
            self._connections += 1

    def _connected_now(
        self, _client: Client, _data: Any, _flags: Any, reason: Any, properties: Any
    ) -> None:
        self._answered = True
        self._largest = getattr(properties, "MaximumPacketSize", MAX_PACKET_BYTES)
        self.refusal = None
        if reason.is_failure:
            self._note(f"The broker at {self._address} refused this client: {reason}.")
            return
        self._gone.clear()
        self._connections += 1
        if self._subscriptions:
            options = SubscribeOptions(qos=1)
            self._client.subscribe([(topic, options) for topic in self._subscriptions])
        else:
            self._ready()

    def _subscribed(
        self, _client: Client, _data: Any, _mid: int, reasons: Any, _properties: Any
    ) -> None:
        for topic, reason in zip(self._subscriptions, reasons, strict=False):
            if reason.is_failure:
                # What comes up still arrives, and HTTPS brings what should have come down.
                self.last_error = f"the broker refuses a subscription to {topic}: {reason}"
                log.warning("%s", self.last_error)
        self._ready()

    def _ready(self) -> None:
        self._connected.set()
        with _surviving("a new connection"):
            self._on_connect()

    def _connect_failed(self, _client: Client, _data: Any) -> None:
        error, self._client.failure = self._client.failure, None
        self.refusal = None
        if isinstance(error, ssl.SSLCertVerificationError):
            untrusted = refusal_of(error, self._address, self._host, self._ca)
            # A date may come right by itself, as when a device's clock is set only later.
            self.refusal = None if error.verify_code in DATES else untrusted
            self._note(str(untrusted))
        elif isinstance(error, ssl.SSLError):
            why = (error.reason or str(error)).lower().replace("_", " ")
            self._note(f"No TLS with the broker at {self._address}: {why}.")
        else:
            self.last_error = f"No connection to {self._address}: {error}."

    def _disconnected_now(
        self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if self.connected:
            self.last_error = str(reason)
        elif not self._answered and not self._closing:
            hint = "; it may not accept this client's certificate" if self._secure else ""
            self._note(
                f"The broker at {self._address} ended the connection without an answer. "
                f"Its log says why{hint}."
            )
        self._answered = False
        self._connected.clear()
        self._gone.set()

    @property
    def _address(self) -> str:
        return f"{self._host}:{self._port}"

    def _note(self, problem: str) -> None:
        """Remember and log what keeps this client out, once until it is another thing."""
        if problem != self.last_error:
            log.warning("%s", problem)
        self.last_error = problem

    def _received(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        if self._on_delivery:
            acknowledge = self._acknowledging(message.mid, message.qos)
            with _surviving("a message"):
                self._on_delivery(message.topic, bytes(message.payload), acknowledge)
            return
        try:
            with _surviving("a message"):
                self._on_message(message.topic, bytes(message.payload))
        except NotTaken as error:
            log.warning("a message on %s is not acknowledged: %s", message.topic, error)
            return
        client.ack(message.mid, message.qos)

    def _acknowledging(self, mid: int, qos: int) -> Callable[[], None]:
        """What acknowledges a message on the connection that it came by.

        Without that one it does nothing: the broker gives the message again, by another number.
        """
        connection = self._connections

        def acknowledge() -> None:
            with self._sending, contextlib.suppress(OSError):
                if connection == self._connections:
                    self._client.ack(mid, qos)

        return acknowledge


class _Client(Client):
    """paho's client, remembering why a connection failed: paho's own callback does not say."""

    failure: OSError | None = None

    def reconnect(self) -> MQTTErrorCode:
        """Connect."""
        try:
            return super().reconnect()
        except OSError as error:
            self.failure = error
            raise


@contextlib.contextmanager
def _surviving(what: str) -> Iterator[None]:
    """Let no handler's fault end the thread that the session lives on."""
    try:
        yield
    except NotTaken:
        raise
    except Exception:
        log.exception("the handler of %s failed", what)


def parse_url(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken.

    >>> parse_url("mqtts://broker.example")
    ('broker.example', 8883, True)
    >>> parse_url("wss://broker.example/mqtt")
    ('broker.example', 443, True)

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
            f"{url[:200]!r} is no broker's address.",
            fix="Write mqtt://host:port, mqtts://host or wss://host/path.",
        )
    return parts.hostname, port or _PORTS[parts.scheme], parts.scheme in _SECURE


def require(session: MqttSession, timeout_s: float) -> None:
    """Wait for the broker.

    Raises:
        RemoteError: it did not accept this client in time.
        TrustError: it is there, and its certificate is not accepted.
    """
    if not session.wait_connected(timeout_s):
        if session.refusal:
            raise session.refusal
        raise RemoteError(
            "The MQTT broker cannot be reached.", why=session.last_error or "It did not answer."
        )
