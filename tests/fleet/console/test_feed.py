import asyncio
from collections.abc import Callable

from fleet.console.feed import AT_LEAST_EVERY_S, EVERY_S, Readings


class Fleet:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads, self.changes, self.now = 0, 0, 100.0
        self.readings = Readings(lambda: self.changes, lambda: self.now)

    def read(self) -> int:
        self.reads += 1
        return self.reads

    def get(self, key: str = "overview", every_s: float = EVERY_S) -> int:
        return asyncio.run(self.readings.get(key, self.read, every_s))


def test_many_pages_share_one_reading() -> None:
    fleet = Fleet()

    async def look() -> None:
        await asyncio.gather(
            *(fleet.readings.get("overview", fleet.read) for _ in range(20)),
        )

    asyncio.run(look())
    assert fleet.reads == 1


def test_readings_of_different_keys_are_apart() -> None:
    fleet = Fleet()
    assert [fleet.get("one"), fleet.get("other"), fleet.get("one")] == [1, 2, 1]


def test_a_change_is_read_after_a_second_and_nothing_without_one() -> None:
    fleet = Fleet()
    assert fleet.get() == 1
    fleet.now += EVERY_S
    assert fleet.get() == 1
    fleet.changes += 1
    assert fleet.get() == 2


def test_a_thousand_changes_within_a_second_are_read_once() -> None:
    fleet = Fleet()
    fleet.get()
    for _ in range(1000):
        fleet.changes += 1
        fleet.now += EVERY_S / 1001
        fleet.get()
    assert fleet.reads == 1


def test_without_a_change_it_is_read_now_and_then_since_devices_fall_silent() -> None:
    fleet = Fleet()
    fleet.get()
    fleet.now += AT_LEAST_EVERY_S
    assert fleet.get() == 2


def test_what_is_seldom_read_is_seldom_read() -> None:
    fleet = Fleet()
    fleet.get(every_s=30.0)
    fleet.now += 29.0
    fleet.changes += 1
    assert fleet.get(every_s=30.0) == 1


def test_a_failed_reading_is_tried_again() -> None:
    fleet = Fleet()
    fails: list[Callable[[], int]] = [lambda: 1 // 0, fleet.read]

    async def look() -> int:
        try:
            await fleet.readings.get("overview", fails[0])
        except ZeroDivisionError:
            return await fleet.readings.get("overview", fails[1])
        raise AssertionError

    assert asyncio.run(look()) == 1


def test_readings_are_bounded() -> None:
    fleet = Fleet()
    for number in range(1000):
        fleet.get(str(number))
    assert len(fleet.readings) <= 256
