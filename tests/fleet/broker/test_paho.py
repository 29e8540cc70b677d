"""Both directions against paho's own encoder and decoder, over a pair of sockets, no broker."""

import contextlib
import math
import socket
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fleet.broker import encoding
from fleet.broker.decoding import Frames, decode
from fleet.broker.packets import (
    Connect,
    Disconnect,
    Message,
    Packet,
    Pingreq,
    Puback,
    Publish,
    Reason,
    Subscribe,
    Subscription,
    Unsubscribe,
)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["C"]), max_size=12)
WORD = TEXT.filter(bool)
TOPIC = st.text("ab/\N{GREEK SMALL LETTER ALPHA}", min_size=1, max_size=20)
FILTER = st.sampled_from(["#", "a/+", "edgeml/v1/cam/down/#", "+/+/x", "a"])
PAYLOAD = st.binary(max_size=400)
HEADERS = st.lists(st.tuples(TEXT, TEXT), max_size=3)


class Wired(Client):
    """A paho client whose socket is one end of a pair."""

    def __init__(self, client_id: str = "cam", **options: Any) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5, **options)
        self._near, self.far = socket.socketpair()
        self._frames = Frames(1 << 20)

    def _create_socket(self) -> socket.socket:
        return self._near

    def said(self) -> list[Packet]:
        """The packets that paho sent since the last call, as the broker reads them."""
        self.far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := self.far.recv(1 << 16):
                self._frames.feed(data)
        return [decode(*frame) for frame in self._frames]

    def hears(self, *packets: bytes) -> None:
        """Have paho read packets of the broker."""
        for packet in packets:
            self.far.sendall(packet)
            self.loop_read()


@contextlib.contextmanager
def wired(*, connected: bool = True, **options: Any) -> Iterator[Wired]:
    client = Wired(**options)
    try:
        if connected:
            client.connect("broker", 1)
            client.hears(encoding.connack(Reason.SUCCESS, expiry_s=300))
            assert client.is_connected()
            assert isinstance(client.said()[0], Connect)
        yield client
    finally:
        client._sock_close()
        client._near.close()
        client.far.close()
        client._reset_sockets(sockpair_only=True)


def properties(kind: int, **values: Any) -> Properties:
    made = Properties(kind)
    for name, value in values.items():
        if value is not None and value != []:
            setattr(made, name, value)
    return made


@given(
    client_id=WORD,
    account=st.one_of(st.just(("", "")), st.tuples(WORD, TEXT)),
    clean=st.booleans(),
    keepalive=st.integers(0, 0xFFFF),
    expiry=st.none() | st.integers(0, 0xFFFFFFFF),
    window=st.none() | st.integers(1, 0xFFFF),
    largest=st.none() | st.integers(1, 0x0FFFFFFF),
    will=st.none() | st.tuples(TOPIC, PAYLOAD, st.integers(0, 1), st.booleans()),
    headers=HEADERS,
)
def test_a_connect_of_paho_is_read_as_it_was_meant(
    client_id: str,
    account: tuple[str, str],
    clean: bool,
    keepalive: int,
    expiry: int | None,
    window: int | None,
    largest: int | None,
    will: tuple[str, bytes, int, bool] | None,
    headers: list[tuple[str, str]],
) -> None:
    with wired(connected=False, client_id=client_id) as client:
        if account[0]:
            client.username_pw_set(*account)
        if will:
            topic, payload, qos, retain = will
            client.will_set(topic, payload, qos, retain, properties(PacketTypes.WILLMESSAGE))
        wanted = properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=expiry,
            ReceiveMaximum=window,
            MaximumPacketSize=largest,
            UserProperty=headers,
        )
        client.connect("broker", 1, keepalive, clean_start=clean, properties=wanted)
        [packet] = client.said()
    assert packet == Connect(
        client_id=client_id,
        username=account[0],
        password=account[1],
        clean_start=clean,
        keepalive_s=keepalive,
        expiry_s=expiry or 0,
        receive_maximum=window or 0xFFFF,
        maximum_packet=largest or 0xFFFFFFFF,
        will=will and Message(topic=will[0], payload=will[1], qos=will[2], retain=will[3]),
    )


@given(
    TOPIC,
    PAYLOAD,
    st.integers(0, 1),
    st.booleans(),
    st.none() | TEXT,
    HEADERS,
    st.none() | st.integers(0, 0xFFFFFFFF),
)
def test_a_message_goes_from_paho_to_paho_as_it_was(
    topic: str,
    payload: bytes,
    qos: int,
    retain: bool,
    kind: str | None,
    headers: list[tuple[str, str]],
    expiry: int | None,
) -> None:
    came: list[MQTTMessage] = []
    with wired() as sender, wired(client_id="other", manual_ack=True) as receiver:
        receiver.on_message = lambda _client, _data, message: came.append(message)
        sent = properties(
            PacketTypes.PUBLISH,
            ContentType=kind,
            UserProperty=headers,
            MessageExpiryInterval=expiry,
        )
        sender.publish(topic, payload, qos, retain, sent)
        [packet] = sender.said()
        assert isinstance(packet, Publish)
        assert bool(packet.packet_id) == bool(qos)
        assert packet.message.expiry_s == expiry
        packet_id, left_s = 7 if qos else 0, math.inf if expiry is None else expiry
        receiver.hears(
            encoding.publish(
                packet.message, packet_id=packet_id, dup=bool(qos), retain=retain, left_s=left_s
            )
        )
        [message] = came
        receiver.ack(message.mid, message.qos)
        assert receiver.said() == ([Puback(7)] if qos else [])
        if qos:
            sender.hears(encoding.puback(packet.packet_id, Reason.NOT_AUTHORIZED))
            assert sender.want_write() is False
    assert (message.topic, message.payload, message.qos) == (topic, payload, qos)
    assert (message.retain, message.dup) == (retain, bool(qos))
    assert getattr(message.properties, "ContentType", None) == kind
    assert getattr(message.properties, "MessageExpiryInterval", None) == expiry
    assert getattr(message.properties, "UserProperty", []) == headers


@given(
    st.lists(
        st.tuples(FILTER, st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2)),
        min_size=1,
        max_size=5,
    )
)
def test_subscriptions_of_paho_are_read_and_answered_each(
    wanted: list[tuple[str, int, bool, bool, int]],
) -> None:
    codes: list[list[ReasonCode]] = []
    with wired() as client:
        client.on_subscribe = lambda _client, _data, _mid, reasons, _properties: codes.append(
            reasons
        )
        client.subscribe([(name, SubscribeOptions(*options)) for name, *options in wanted])
        [packet] = client.said()
        assert isinstance(packet, Subscribe)
        assert packet.subscriptions == tuple(
            Subscription(
                topic_filter=name,
                qos=min(qos, 1),
                no_local=no_local,
                retain_as_published=as_published,
                retain_handling=handling,
            )
            for name, qos, no_local, as_published, handling in wanted
        )
        answers = [Reason.GRANTED_QOS_1, Reason.NOT_AUTHORIZED, Reason.FILTER_INVALID] * 2
        client.hears(encoding.suback(packet.packet_id, answers[: len(wanted)]))
    assert [code.value for code in codes[0]] == answers[: len(wanted)]


@given(st.lists(FILTER, min_size=1, max_size=5))
def test_unsubscribing_with_paho_is_read_and_answered(filters: list[str]) -> None:
    codes: list[list[ReasonCode]] = []
    with wired() as client:
        client.on_unsubscribe = lambda _client, _data, _mid, reasons, _properties: codes.append(
            reasons
        )
        client.unsubscribe(filters)
        [packet] = client.said()
        assert isinstance(packet, Unsubscribe)
        assert packet.filters == tuple(filters)
        answers = [Reason.SUCCESS, Reason.NO_SUBSCRIPTION_EXISTED] * 3
        client.hears(encoding.unsuback(packet.packet_id, answers[: len(filters)]))
    assert [code.value for code in codes[0]] == answers[: len(filters)]


@given(st.sampled_from([0x00, 0x04, 0x81]), st.none() | st.integers(0, 0xFFFFFFFF))
def test_a_goodbye_of_paho_is_read(reason: int, expiry: int | None) -> None:
    with wired() as client:
        wish = properties(PacketTypes.DISCONNECT, SessionExpiryInterval=expiry)
        code = ReasonCode(PacketTypes.DISCONNECT, identifier=reason)
        client.disconnect(code, None if expiry is None else wish)
        assert client.said() == [Disconnect(reason, expiry)]


def test_paho_reads_the_answers_that_have_no_property_of_their_own() -> None:
    with wired() as client:
        client._send_pingreq()
        assert client.said() == [Pingreq()]
        client.hears(encoding.PINGRESP)
        ended: list[str] = []
        client.on_disconnect = lambda *details: ended.append(str(details[3]))
        client.hears(encoding.disconnect(Reason.SESSION_TAKEN_OVER))
    assert ended == ["Session taken over"]


def test_paho_reads_what_the_broker_offers_and_what_not() -> None:
    said: list[Properties] = []
    with wired(connected=False) as client:
        client.on_connect = lambda *details: said.append(details[4])
        client.connect("broker", 1)
        client.hears(
            encoding.connack(Reason.SUCCESS, expiry_s=9, keepalive_s=300, assigned="cam-7")
        )
    offered = said[0].json()
    assert offered["SessionExpiryInterval"] == 9
    assert offered["ServerKeepAlive"] == 300
    assert offered["AssignedClientIdentifier"] == "cam-7"
    assert offered["MaximumQoS"] == 1
    assert offered.get("SharedSubscriptionAvailable", 1) == 1
    assert offered["SubscriptionIdentifierAvailable"] == 0
