from collections.abc import Iterable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fleet.broker.decoding import Frames, decode
from fleet.broker.packets import Message, Publish
from fleet.broker.sessions import Bounds, Session

ANY = Bounds(messages=1000, bytes=1 << 20, subscriptions=10)
LARGEST = 1 << 20


def session(bounds: Bounds = ANY, window: int = 10) -> Session:
    made = Session("cam", "cam", bounds)
    made.resume(window, LARGEST)
    return made


def message(payload: bytes, qos: int = 1) -> Message:
    return Message(topic="t", payload=payload, qos=qos, retain=False)


def sent(packets: Iterable[bytes]) -> list[Publish]:
    frames = Frames(LARGEST)
    for packet in packets:
        frames.feed(packet)
    read = [decode(*frame) for frame in frames]
    assert all(isinstance(each, Publish) for each in read)
    return read  # type: ignore[return-value]


def payloads(packets: Iterable[bytes]) -> list[bytes]:
    return [each.message.payload for each in sent(packets)]


def test_the_window_is_never_exceeded_and_an_acknowledgement_opens_it() -> None:
    device = session(window=2)
    for n in range(4):
        device.offer(message(b"%d" % n))
    first = sent(device.take())
    assert [each.message.payload for each in first] == [b"0", b"1"]
    device.acknowledge(first[0].packet_id)
    assert payloads(device.take()) == [b"2"]
    assert device.waiting == 1


def test_what_was_not_acknowledged_is_sent_again_first_and_marked() -> None:
    device = session()
    device.offer(message(b"kept"))
    device.offer(message(b"done"))
    kept, done = sent(device.take())
    device.acknowledge(done.packet_id)
    device.offer(message(b"new"))
    device.resume(10, LARGEST)
    first, second = device.take()
    assert first[0] & 0x08
    assert not second[0] & 0x08
    assert [each.packet_id for each in sent([first])] == [kept.packet_id]
    assert payloads([second]) == [b"new"]


def test_a_smaller_window_holds_for_what_is_sent_again_too() -> None:
    device = session(window=3)
    for n in range(4):
        device.offer(message(b"%d" % n))
    ids = [each.packet_id for each in sent(device.take())]
    device.resume(1, LARGEST)
    assert payloads(device.take()) == [b"0"]
    assert payloads(device.take()) == []
    device.acknowledge(ids[1])  # late, for what came over the connection before
    assert payloads(device.take()) == []
    device.acknowledge(ids[0])
    assert payloads(device.take()) == [b"2"]
    device.acknowledge(ids[2])
    assert payloads(device.take()) == [b"3"]


def test_what_the_client_has_become_too_small_for_is_not_sent_again() -> None:
    device = session()
    for payload in (bytes(200), b"small"):
        device.offer(message(payload))
    assert len(sent(device.take())) == 2
    device.resume(10, 100)
    assert payloads(device.take()) == [b"small"]
    assert device.dropped == 1


def test_the_oldest_makes_room_at_each_bound_and_is_counted() -> None:
    device = session(Bounds(messages=2, bytes=1 << 20, subscriptions=1))
    for n in range(5):
        device.offer(message(b"%d" % n))
    assert payloads(device.take()) == [b"3", b"4"]
    assert device.dropped == 3
    small = session(Bounds(messages=100, bytes=2000, subscriptions=1))
    for _ in range(5):
        small.offer(message(bytes(900)))
    assert small.waiting <= 2


def test_what_is_in_flight_counts_against_the_bytes_until_it_is_acknowledged() -> None:
    bounds = Bounds(messages=1000, bytes=10_000, subscriptions=1)
    device, ids = session(bounds, window=1000), []
    for _ in range(100):
        device.offer(message(bytes(900)))
        ids += [each.packet_id for each in sent(device.take())]
        assert device.size <= bounds.bytes
    assert 0 < len(ids) < 12
    device.resume(1000, LARGEST)
    assert len(sent(device.take())) == len(ids)
    assert device.size <= bounds.bytes
    for packet_id in [*ids, *ids]:
        device.acknowledge(packet_id)
    assert device.size == 0
    device.offer(message(b"new"))
    assert payloads(device.take()) == [b"new"]


@given(st.lists(st.sampled_from(["offer", "take", "acknowledge", "shrink"]), max_size=60))
def test_the_bytes_are_those_of_what_it_holds(steps: list[str]) -> None:
    device, ids = session(Bounds(messages=5, bytes=1000, subscriptions=1), window=3), [0]
    for number, step in enumerate(steps):
        if step == "offer":
            device.offer(message(bytes(40 * (number % 9)), qos=number % 2))
        elif step == "take":
            ids += [each.packet_id for each in sent(device.take())]
        elif step == "acknowledge":
            device.acknowledge(ids.pop() if ids else 1)
        else:
            device.resume(3, 150)
        held = [*device._waiting, *device._in_flight.values()]
        assert device.size == sum(each.size for each in held) <= 1000


def test_a_message_that_the_client_does_not_take_is_left_out() -> None:
    device = Session("cam", "cam", ANY)
    device.resume(10, 100)
    device.offer(message(bytes(200)))
    device.offer(message(b"small"))
    assert payloads(device.take()) == [b"small"]
    assert device.dropped == 1


def test_qos_0_needs_no_window() -> None:
    device = session(window=1)
    device.offer(message(b"a"))
    device.offer(message(b"b", qos=0))
    device.offer(message(b"c", qos=0))
    assert payloads(device.take()) == [b"a", b"b", b"c"]


@given(st.lists(st.sampled_from(["offer", "take", "acknowledge", "resume"]), max_size=80))
def test_every_message_arrives_in_order_and_none_is_lost(steps: list[str]) -> None:
    window = 3
    device, offered, arrived, open_ids = session(window=window), 0, [], {}
    for step in [*steps, *["resume", "take", "acknowledge"] * 80]:
        if step == "offer":
            device.offer(message(b"%d" % offered))
            offered += 1
        elif step == "acknowledge":
            for packet_id, payload in open_ids.items():
                device.acknowledge(packet_id)
                arrived.append(int(payload))
            open_ids = {}
        else:
            if step == "resume":
                open_ids, window = {}, 4 - window
                device.resume(window, LARGEST)
            open_ids |= {each.packet_id: each.message.payload for each in sent(device.take())}
            assert len(open_ids) <= window
    assert arrived == list(range(offered))


def test_packet_identifiers_are_reused_after_65535() -> None:
    device = session(window=1)
    for n in range(70_000):
        device.offer(message(b"%d" % n))
        (packet,) = device.take()
        device.acknowledge(int.from_bytes(packet[5:7]))  # behind head and topic "t"
    assert device.waiting == 0


def test_what_has_expired_is_neither_sent_nor_sent_again_and_takes_no_room() -> None:
    now = [100.0]
    device = Session("cam", "cam", ANY, lambda: now[0])
    device.resume(1, LARGEST)
    for name, ends_at in ((b"short", 110.0), (b"gone", 105.0), (b"long", 200.0)):
        device.offer(msgspec.structs.replace(message(name), ends_at=ends_at))
    assert payloads(device.take()) == [b"short"]
    now[0] = 120.0
    device.resume(10, LARGEST)
    [left] = sent(device.take())
    assert left.message.payload == b"long"
    # How long it may wait yet travels on.
    assert left.message.expiry_s == 80
    device.acknowledge(left.packet_id)
    assert (device.waiting, device.size) == (0, 0)
