"""What clients send: packets that paho makes are read, and nothing else does harm."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.broker import encoding
from fleet.broker.decoding import Frames, decode
from fleet.broker.packets import (
    Connect,
    Message,
    PacketError,
    Publish,
    Reason,
    Subscribe,
    Subscription,
)

CONNECT = (
    b"\x00\x04MQTT\x05\xe6\x00\x1e"  # version 5; user, password, retained QoS 0 will, clean start
    b"\x08\x11\x00\x00\x01\x2c\x21\x00\x0a"  # session expiry 300, receive maximum 10
    b"\x00\x05cam-1\x00\x00\x01t\x00\x04gone\x00\x05cam-1\x00\x06secret"
)
MESSAGES = st.builds(
    Message,
    topic=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
    payload=st.binary(max_size=300),
    qos=st.integers(0, 1),
    retain=st.booleans(),
    properties=st.sampled_from([b"", b"\x01\x01", b"\x03\x00\x04text", b"\x26\x00\x01a\x00\x01b"]),
)


def test_a_connect_is_read_with_its_will() -> None:
    packet = decode(0x10, CONNECT)
    assert packet == Connect(
        client_id="cam-1",
        username="cam-1",
        password="secret",
        clean_start=True,
        keepalive_s=30,
        expiry_s=300,
        receive_maximum=10,
        maximum_packet=0xFFFFFFFF,
        will=Message(topic="t", payload=b"gone", qos=0, retain=True),
    )


@pytest.mark.parametrize(
    ("was", "now", "reason"),
    [
        (b"MQTT\x05", b"MQTT\x04", Reason.UNSUPPORTED_VERSION),
        (b"MQTT\x05\xe6", b"MQTT\x05\xe7", Reason.MALFORMED),
        (b"MQTT\x05\xe6", b"MQTT\x05\xf6", Reason.QOS_UNSUPPORTED),
        (b"\x21\x00\x0a", b"\x21\x00\x00", Reason.PROTOCOL_ERROR),
        (b"\x08\x11", b"\x08\x23", Reason.PROTOCOL_ERROR),
        (b"secret", b"secret!", Reason.MALFORMED),
        (b"\x00\x06secret", b"\x00\x07secret", Reason.MALFORMED),
        (b"\x00\x05cam-1", b"\x00\x05cam\0z", Reason.MALFORMED),
        (b"\x00\x05cam-1", b"\x00\x05cam\xff\xfe", Reason.MALFORMED),
    ],
)
def test_a_wrong_connect_is_refused_with_its_reason(was: bytes, now: bytes, reason: Reason) -> None:
    with pytest.raises(PacketError) as caught:
        decode(0x10, CONNECT.replace(was, now, 1))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("first", "body", "reason"),
    [
        (0x36, b"\x00\x01a\x00\x01\x00", Reason.QOS_UNSUPPORTED),
        (0x32, b"\x00\x01a\x00\x00\x00", Reason.PROTOCOL_ERROR),
        (0x30, b"\x00\x01a\x03\x23\x00\x01", Reason.TOPIC_ALIAS_INVALID),
        (0x82, b"\x00\x01\x00", Reason.MALFORMED),
        (0x82, b"\x00\x01\x00\x00\x01a\x03", Reason.MALFORMED),
        (0x82, b"\x00\x01\x02\x0b\x05\x00\x01a\x01", Reason.IDENTIFIERS_UNSUPPORTED),
        (0x80, b"\x00\x01\x00\x00\x01a\x01", Reason.MALFORMED),
        (0xF0, b"", Reason.PROTOCOL_ERROR),
        (0x00, b"", Reason.PROTOCOL_ERROR),
        (0x62, b"\x00\x01", Reason.PROTOCOL_ERROR),
    ],
)
def test_what_is_not_offered_is_refused_with_its_reason(
    first: int, body: bytes, reason: Reason
) -> None:
    with pytest.raises(PacketError) as caught:
        decode(first, body)
    assert caught.value.reason is reason


def test_a_subscription_is_read_with_its_options() -> None:
    assert decode(0x82, b"\x00\x07\x00\x00\x03a/#\x2e") == Subscribe(
        7,
        (
            Subscription(
                topic_filter="a/#",
                qos=1,
                no_local=True,
                retain_as_published=True,
                retain_handling=2,
            ),
        ),
    )


@given(MESSAGES, st.integers(1, 0xFFFF))
def test_a_message_is_read_as_it_was_written(message: Message, packet_id: int) -> None:
    wanted = packet_id if message.qos else 0
    data = encoding.publish(message, packet_id=wanted, dup=False, retain=message.retain)
    frames = Frames(1 << 20)
    frames.feed(data)
    assert [decode(*frame) for frame in frames] == [Publish(packet_id=wanted, message=message)]


@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_a_packet_error(first: int, body: bytes) -> None:
    with contextlib.suppress(PacketError):
        decode(first, body)


@given(st.integers(0, len(CONNECT) - 1), st.integers(1, 255))
def test_a_connect_with_one_wrong_byte_is_a_packet_or_a_packet_error(at: int, by: int) -> None:
    broken = bytearray(CONNECT)
    broken[at] ^= by
    with contextlib.suppress(PacketError):
        decode(0x10, bytes(broken))


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_packets_come_out_whole_however_the_stream_is_cut(bodies: list[bytes], step: int) -> None:
    stream = b"".join(b"\x30" + encoding.length(len(body)) + body for body in bodies)
    frames, out = Frames(1 << 10), []
    for at in range(0, len(stream), step):
        frames.feed(stream[at : at + step])
        out += [body for _, body in frames]
    assert out == bodies


def test_a_length_above_the_limit_is_refused_before_its_body_comes() -> None:
    frames = Frames(1000)
    frames.feed(b"\x10" + encoding.length(2000))
    with pytest.raises(PacketError) as caught:
        list(frames)
    assert caught.value.reason is Reason.PACKET_TOO_LARGE


def test_a_length_of_five_bytes_is_refused() -> None:
    frames = Frames(1000)
    frames.feed(b"\x10\xff\xff\xff\xff\x01")
    with pytest.raises(PacketError):
        list(frames)


CLIENT_PACKETS = [
    b"\x10" + encoding.length(len(CONNECT)) + CONNECT,
    b"\x32\x12\x00\x05a/b/c\x00\x07\x05\x03\x00\x02ctxyz",
    b"\x30\x05\x00\x01t\x00x",
    b"\x40\x07\x00\x07\x10\x03\x1f\x00\x00",
    b"\x82\x0d\x00\x01\x00\x00\x03a/#\x2e\x00\x01b\x00",
    b"\xa2\x0b\x00\x01\x00\x00\x03a/#\x00\x01b",
    b"\xc0\x00",
    b"\xe0\x07\x04\x05\x11\x00\x00\x01\x2c",
]


def broken(stream: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    """A stream with bytes put in, taken out or written over."""
    data = bytearray(stream)
    for place, edit, junk in edits:
        at = place % (len(data) + 1)
        if edit == "insert":
            data[at:at] = junk
        elif edit == "delete":
            del data[at : at + len(junk)]
        else:
            data[at : at + len(junk)] = junk
    return bytes(data)


EDITS = st.lists(
    st.tuples(
        st.integers(0, 500),
        st.sampled_from(["insert", "delete", "replace"]),
        st.binary(min_size=1, max_size=4),
    ),
    max_size=4,
)


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(CLIENT_PACKETS), min_size=1, max_size=4), EDITS)
def test_a_stream_that_was_tampered_with_ends_in_a_packet_error_if_in_anything(
    packets: list[bytes], edits: list[tuple[int, str, bytes]]
) -> None:
    frames = Frames(1000)
    frames.feed(broken(b"".join(packets), edits))
    with contextlib.suppress(PacketError):
        for frame in frames:
            decode(*frame)


@pytest.mark.parametrize("packet", CLIENT_PACKETS, ids=lambda packet: f"{packet[0]:#x}")
def test_a_packet_has_no_more_bytes_than_it_needs(packet: bytes) -> None:
    [(first, body)] = frames_of(packet)
    assert decode(first, body)
    if first >> 4 != 3:  # the rest of a message is its payload
        with pytest.raises(PacketError):
            decode(first, body + b"\x00")


def test_a_connect_that_is_cut_short_anywhere_is_refused() -> None:
    for size in range(len(CONNECT)):
        with pytest.raises(PacketError):
            decode(0x10, CONNECT[:size])


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    frames = Frames(1000)
    frames.feed(data)
    return list(frames)
