"""The mailbox: one frame a source, the newest, every frame accounted for."""

import threading
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.mailbox import Frame, Mailbox

IMAGE = np.zeros((1, 1), np.uint8)


def frame(source: str, index: int) -> Frame:
    return Frame(source=source, index=index, captured=0.0, image=IMAGE)


@given(st.lists(st.one_of(st.sampled_from("abc"), st.none()), max_size=60))
def test_accepted_is_taken_and_replaced_and_waiting(history: list[str | None]) -> None:
    mailbox = Mailbox()
    newest: dict[str, int] = {}
    taken: Counter[str] = Counter()
    for index, source in enumerate(history):
        if source is None:
            found = mailbox.take(0)
            if found is not None:
                assert found.index == newest[found.source]
                taken[found.source] += 1
        else:
            waited = mailbox.waiting(source) == 1
            assert mailbox.put(frame(source, index)) == waited
            newest[source] = index
        for name in mailbox.sources():
            accepted, replaced = mailbox.counts(name)
            assert accepted == taken[name] + replaced + mailbox.waiting(name)


def test_a_quick_source_gets_its_turn_beside_slow_ones() -> None:
    mailbox = Mailbox()
    for source in ("slow-1", "quick", "slow-2"):
        mailbox.put(frame(source, 0))
    served = []
    for index in range(1, 31):
        for _ in range(20):
            mailbox.put(frame("quick", index))
        found = mailbox.take(0)
        assert found is not None
        served.append(found.source)
        mailbox.put(frame(found.source, index))
    assert Counter(served) == {"slow-1": 10, "quick": 10, "slow-2": 10}


def test_nothing_is_lost_or_doubled_between_threads() -> None:
    mailbox = Mailbox()
    taken: list[Frame] = []
    ready = threading.Event()

    def consume() -> None:
        while (found := mailbox.take(5.0)) is not None:
            taken.append(found)
            ready.set()

    def produce(source: str) -> None:
        for index in range(3000):
            mailbox.put(frame(source, index))

    consumer = threading.Thread(target=consume)
    producers = [threading.Thread(target=produce, args=[name]) for name in "ab"]
    for thread in (consumer, *producers):
        thread.start()
    for thread in producers:
        thread.join()
    assert ready.wait(5)
    mailbox.close()
    consumer.join()
    for name in "ab":
        mine = [found.index for found in taken if found.source == name]
        assert mine == sorted(set(mine))
        accepted, replaced = mailbox.counts(name)
        assert accepted == 3000
        assert accepted == len(mine) + replaced + mailbox.waiting(name)


def test_closing_wakes_whoever_waits() -> None:
    mailbox = Mailbox()
    found: list[Frame | None] = []
    waiter = threading.Thread(target=lambda: found.append(mailbox.take(60)))
    waiter.start()
    mailbox.close()
    waiter.join(5)
    assert found == [None]


def test_what_is_said_to_each_of_two_threads_adds_up_to_the_count() -> None:
    mailbox = Mailbox()
    replaced = [0, 0]
    start = threading.Barrier(3)
    taken: list[Frame] = []

    def produce(side: int) -> None:
        start.wait()
        for index in range(5000):
            replaced[side] += mailbox.put(frame("a", 2 * index + side))

    def consume() -> None:
        start.wait()
        while (found := mailbox.take(0.2)) is not None:
            taken.append(found)

    threads = [threading.Thread(target=produce, args=[side]) for side in (0, 1)]
    threads.append(threading.Thread(target=consume))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mailbox.counts("a") == (10_000, sum(replaced))
    assert len(taken) == 10_000 - sum(replaced)
    assert len({found.index for found in taken}) == len(taken)
    # Of one thread's frames none overtakes another.
    for side in (0, 1):
        mine = [found.index for found in taken if found.index % 2 == side]
        assert mine == sorted(mine)
