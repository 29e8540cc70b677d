import asyncio
from pathlib import Path

from fleet.console.feed import AT_LEAST_EVERY_S, EVERY_S, Feed
from fleet.resources import Health
from tests.fleet.console.scenes import SceneReader


class CountingReader(SceneReader):
    """Counts how often the fleet was read."""

    reads = 0

    def health(self) -> Health:
        self.reads += 1
        return super().health()


def make(tmp_path: Path) -> tuple[CountingReader, list[float], Feed]:
    (tmp_path / "scene").write_text("story")
    reader, now = CountingReader(tmp_path / "scene"), [100.0]
    return reader, now, Feed(reader, lambda: now[0])


def test_many_pages_share_one_reading(tmp_path: Path) -> None:
    reader, _, feed = make(tmp_path)

    async def look() -> None:
        await asyncio.gather(*(feed.latest() for _ in range(20)))

    asyncio.run(look())
    assert reader.reads == 1


def test_a_change_is_read_after_a_second_and_nothing_without_one(tmp_path: Path) -> None:
    reader, now, feed = make(tmp_path)

    async def look() -> None:
        await feed.latest()
        now[0] += EVERY_S
        await feed.latest()
        assert reader.reads == 1
        (tmp_path / "scene").write_text("empty")
        shown = await feed.latest()
        assert not shown.rollouts
        assert reader.reads == 2

    asyncio.run(look())


def test_without_a_change_it_is_read_now_and_then_since_devices_fall_silent(tmp_path: Path) -> None:
    reader, now, feed = make(tmp_path)

    async def look() -> None:
        await feed.latest()
        now[0] += AT_LEAST_EVERY_S
        await feed.latest()

    asyncio.run(look())
    assert reader.reads == 2
