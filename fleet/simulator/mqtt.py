"""One device's MQTT 5 session, as small as it gets: ten thousand of them live in one process.

What the agent has in `cloud_sync.mqtt_session` (paho, with a thread and a socket pair for each
client) is here one `asyncio.Protocol` over the sans-I/O codec `mqtt5`: no thread, no task, 2.5 kB
for each device (gmqtt takes 19). It says the same on the wire: MQTT 5, `clean_start=False`, QoS 1,
the will, an acknowledgement after the handler has returned.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

import mqtt5

from cloud_sync.messages import Down, topic
from cloud_sync.mqtt_session import KEEPALIVE_S, MAX_INFLIGHT, MAX_PACKET_BYTES, SESSION_EXPIRY_S
from edgeml.errors import RemoteError, TrustError

_PING: Final = mqtt5.PingReqPacket().write()
_FILTERS: Final = 1  # the packet id of the only SUBSCRIBE
_LAST_ID: Final = 0xFFFF


class Session(asyncio.Protocol):
    """A connection of one device; made by `connect`.

    Args:
        device: the client's and the user's name, and the level of its topics.
        password: at the broker; empty where the certificate speaks.
        will: topic and payload that the broker publishes, retained, when the connection is lost.
        on_message: called with topic and payload.
        on_lost: called once when the connection is gone and was not closed from here.
    """

    __slots__ = (
        "_buffer", "_closing", "_device", "_next_id", "_on_lost", "_on_message", "_password",
        "_pinging", "_ready", "_transport", "_will",
    )  # fmt: skip

    def __init__(
        self,
        device: str,
        password: str,
        will: tuple[str, bytes],
        on_message: Callable[[str, bytes], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._device = device
        self._password = password
        self._will = will
        self._on_message = on_message
        self._on_lost = on_lost
        self._buffer = b""
        self._next_id = _FILTERS
        self._closing = False
        self._transport: asyncio.Transport | None = None
        self._pinging: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client and its subscriptions."""
        return self._transport is not None and self._ready is None

    async def ready(self, timeout_s: float) -> None:
        """Wait until the broker has taken the subscriptions.

        Raises:
            RemoteError: it did not, in time.
            TrustError: it refuses this client.
        """
        assert self._ready is not None
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready
        except TimeoutError:
            self.close()
            raise RemoteError(
                "The MQTT broker did not answer.", why=f"Nothing came within {timeout_s:g} s."
            ) from None
        finally:
            self._ready = None

    def publish(self, name: str, payload: bytes, *, retain: bool = False) -> bool:
        """Send a message with QoS 1; whether there is a connection to send it on."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self._next_id = self._next_id % _LAST_ID + 1
        packet = mqtt5.PublishPacket(
            name,
            payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            retain=retain,
            packet_id=self._next_id,
        )
        transport.write(packet.write())
        return True

    def close(self) -> None:
        """Disconnect properly: the broker publishes no will."""
        self._end(mqtt5.DisconnectPacket().write())

    def vanish(self) -> None:
        """Lose the connection, as a device without power does."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce this client."""
        # uvloop's are transports in all but their class.
        self._transport = transport = cast("asyncio.Transport", transport)
        name, payload = self._will
        transport.write(
            mqtt5.ConnectPacket(
                self._device,
                username=self._device if self._password else None,
                password=self._password.encode() or None,
                clean_start=False,
                keep_alive=KEEPALIVE_S,
                session_expiry_interval=SESSION_EXPIRY_S,
                receive_max=MAX_INFLIGHT,
                max_packet_size=MAX_PACKET_BYTES,
                will=mqtt5.Will(name, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True),
            ).write()
        )

    def data_received(self, data: bytes) -> None:
        """Take what came; what is not whole yet is kept."""
        self._buffer += data
        view, at = memoryview(self._buffer), 0
        try:
            while at < len(view):
                packet, size = mqtt5.read(view[at:])
                at += size
                self._take(packet)
        except IndexError:
            pass  # the rest of a packet is on its way
        except ValueError as error:
            self._fail(RemoteError("The MQTT broker broke the protocol.", why=f"{error}."))
        finally:
            view.release()
        self._buffer = self._buffer[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, or whoever owns this session."""
        self._transport = None
        if self._pinging is not None:
            self._pinging.cancel()
        why = f"{exc or 'It closed the connection'}.".replace("..", ".")
        self._fail(RemoteError("The MQTT broker let go of a device.", why=why))
        if not self._closing:
            self._closing = True
            self._on_lost()

    def _take(self, packet: "mqtt5.Packet") -> None:
        match packet:
            case mqtt5.PublishPacket():
                self._on_message(packet.topic, packet.payload)
                if packet.packet_id is not None:
                    self._write(mqtt5.PubAckPacket(packet.packet_id).write())
            case mqtt5.ConnAckPacket():
                self._accepted(packet)
            case mqtt5.SubAckPacket():
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
            case mqtt5.DisconnectPacket():
                self._fail(RemoteError("The MQTT broker sent a device away.", why=f"{packet}."))
            case _:
                pass  # PUBACK and PINGRESP: the fleet's ack is what counts

    def _accepted(self, packet: "mqtt5.ConnAckPacket") -> None:
        if packet.reason_code is not mqtt5.ConnAckReasonCode.SUCCESS:
            reason = packet.reason_code.name.lower().replace("_", " ")
            self._fail(TrustError("The MQTT broker refused a device.", why=f"It says: {reason}."))
            self._end(b"")
            return
        wanted = [
            mqtt5.TopicFilter(topic(self._device, name), max_qos=mqtt5.QoS.AT_LEAST_ONCE)
            for name in Down
        ]
        self._write(mqtt5.SubscribePacket(_FILTERS, wanted).write())
        self._ping()

    def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        if self._pinging is not None:
            self._write(_PING)
        self._pinging = loop.call_later(KEEPALIVE_S * 0.8, self._ping)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _fail(self, error: Exception) -> None:
        if self._ready is not None and not self._ready.done():
            self._closing = True
            self._ready.set_exception(error)

    def _end(self, farewell: bytes) -> None:
        self._closing = True
        if self._transport is not None:
            self._write(farewell)
            self._transport.close()


async def connect(
    host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float, **session: Any
) -> Session:
    """Connect a device and subscribe it; the arguments are those of `Session`.

    Raises:
        RemoteError: the broker cannot be reached or does not answer.
        TrustError: the broker refuses the device, or its certificate is not accepted.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, made = await loop.create_connection(lambda: Session(**session), host, port, ssl=tls)
    except ssl.SSLCertVerificationError as error:
        raise TrustError("The broker was refused.", why=f"{error.verify_message}.") from error
    except (OSError, TimeoutError) as error:
        raise RemoteError(
            f"The MQTT broker at {host}:{port} cannot be reached.",
            why=f"{error or 'It did not answer in time'}.",
        ) from error
    await made.ready(timeout_s)
    return made
