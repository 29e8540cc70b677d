"""What waits to be opened: in order, in groups, bounded."""

import threading
from concurrent.futures import Future

import pytest

from cloud_sync.messages import Up
from fleet.ingest import waiting as module
from fleet.ingest.waiting import ENOUGH, MAX_TOGETHER, Full, Message, Waiting


def message(number: int) -> Message:
    return Message("cam-1", Up.STATE, str(number).encode())


def payloads(group: list[Message]) -> list[int]:
    return [int(one.payload) for one in group]


def test_all_comes_in_order_in_groups_and_nothing_twice() -> None:
    waiting, found = Waiting(), list[int]()

    def take() -> None:
        while group := waiting.group():
            assert len(group) <= MAX_TOGETHER
            found.extend(payloads(group))

    thread = threading.Thread(target=take)
    thread.start()
    for number in range(3 * ENOUGH + 1):  # the last of them waits for more in vain
        waiting.put(message(number), 60)
    waiting.end()
    thread.join()
    assert found == list(range(3 * ENOUGH + 1))


def test_where_little_may_wait_nobody_waits_for_more() -> None:
    waiting = Waiting(1)
    for number in range(3):
        waiting.put(message(number), 60)
        with pytest.raises(Full):
            waiting.put(message(99), 0)
        assert payloads(waiting.group()) == [number]


def test_what_waits_at_the_end_is_given_and_then_nothing() -> None:
    waiting = Waiting()
    for number in range(2):
        waiting.put(message(number), 60)
        assert payloads(waiting.group()) == [number]
    waiting.put(message(2), 60)
    waiting.end()
    assert payloads(waiting.group()) == [2]
    assert waiting.group() == []


def test_the_rest_of_a_stream_that_filled_a_group_does_not_wait_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 3600.0)
    waiting, found = Waiting(), list[int]()

    def take() -> None:
        while len(found) <= MAX_TOGETHER:
            found.extend(payloads(waiting.group()))

    for number in range(MAX_TOGETHER + 1):
        waiting.put(message(number), 60)
    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(60)
    assert found == list(range(MAX_TOGETHER + 1))


def test_who_waits_for_the_answer_leaves_room_for_the_bus() -> None:
    waiting = Waiting(10)

    def asked() -> Message:
        return Message("cam-1", Up.HELLO, b"", done=Future())

    for _ in range(2):
        waiting.put(asked(), 60)
    with pytest.raises(Full):
        waiting.put(asked(), 0)
    for number in range(8):
        waiting.put(message(number), 60)
    with pytest.raises(Full):
        waiting.put(message(8), 0)
