"""Blobs that many ask for at once: sent whole, read once, and never more of them than is said."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.types import Message

from fleet import pieces
from fleet.pieces import PIECE_BYTES, Pieces, Whole

SIZE = 2 * PIECE_BYTES + 1234
DATA = bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256)
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets that were really read."""
    really: Callable[[Path, int], bytes] = pieces._read
    seen: list[int] = []

    def read(path: Path, offset: int) -> bytes:
        seen.append(offset)
        return really(path, offset)

    monkeypatch.setattr(pieces, "_read", read)
    return seen


async def sent(known: Pieces, path: Path, size: int = SIZE) -> list[Message]:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        raise AssertionError

    await Whole(known, path, DIGEST, size, {"ETag": "x"})({}, receive, send)
    return messages


def body(messages: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


def test_a_blob_is_sent_whole_with_its_length(blob: Path) -> None:
    begin, *rest = asyncio.run(sent(Pieces(), blob))
    headers = dict(begin["headers"])
    assert (begin["status"], headers[b"content-length"]) == (200, str(SIZE).encode())
    assert headers[b"etag"] == b"x"
    assert [len(message["body"]) for message in rest] == [PIECE_BYTES, PIECE_BYTES, 1234]
    assert [message["more_body"] for message in rest] == [True, True, False]
    assert body(rest) == DATA


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_every_size_ends_with_its_last_byte(tmp_path: Path, size: int) -> None:
    (tmp_path / "blob").write_bytes(DATA[:size])
    messages = asyncio.run(sent(Pieces(), tmp_path / "blob", size))
    assert body(messages) == DATA[:size]
    assert [m["more_body"] for m in messages[1:]].count(False) == 1
    assert messages[-1]["more_body"] is False


def test_many_who_ask_together_have_each_piece_read_once(blob: Path, reads: list[int]) -> None:
    async def many() -> list[list[Message]]:
        known = Pieces()
        return await asyncio.gather(*(sent(known, blob) for _ in range(100)))

    assert {body(messages) for messages in asyncio.run(many())} == {DATA}
    assert sorted(reads) == [0, PIECE_BYTES, 2 * PIECE_BYTES]


def test_who_goes_away_takes_no_piece_from_the_others(blob: Path, reads: list[int]) -> None:
    async def some_leave() -> bytes:
        known = Pieces()
        gone = asyncio.create_task(known.get(blob, DIGEST, 0))
        stays = asyncio.create_task(known.get(blob, DIGEST, 0))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(some_leave()) == DATA[:PIECE_BYTES]
    assert reads == [0]


def test_a_file_that_could_not_be_read_is_tried_again(blob: Path) -> None:
    async def twice() -> bytes:
        known = Pieces()
        missing = blob.with_name("later")
        with pytest.raises(FileNotFoundError):
            await known.get(missing, DIGEST, 0)
        missing.write_bytes(DATA)
        return await known.get(missing, DIGEST, 0)

    assert asyncio.run(twice()) == DATA[:PIECE_BYTES]


def test_a_file_that_ends_early_ends_the_answer_short_of_its_length(blob: Path) -> None:
    blob.write_bytes(DATA[:PIECE_BYTES])
    messages = asyncio.run(sent(Pieces(), blob))
    assert body(messages) == DATA[:PIECE_BYTES]  # the server cuts the connection then
    assert messages[-1]["more_body"] is False


def test_no_more_than_32_mib_are_kept_and_the_oldest_go(blob: Path, reads: list[int]) -> None:
    most = (32 << 20) // PIECE_BYTES

    async def ask() -> None:
        known = Pieces()
        for number in range(most):
            await known.get(blob, f"sha256:{number}", 0)
        await known.get(blob, "sha256:0", 0)  # asked for again: not the oldest any more
        await known.get(blob, "sha256:new", 0)
        reads.clear()
        await known.get(blob, "sha256:0", 0)
        assert reads == []
        await known.get(blob, "sha256:1", 0)
        assert reads == [0]

    asyncio.run(ask())
