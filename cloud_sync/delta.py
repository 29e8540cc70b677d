r"""A blob as its difference to another: what a device fetches where it holds the earlier model.

The difference of two models is taken byte by byte, modulo 256, at places that belong together,
and packed as XZ. Weights that were trained further differ in their lower bytes only, and what did
not change is nought. docs/deltas.md has the measured figures, beside zstd, bsdiff and chunks: where
a delta is worth it, this is the smallest or larger by less than 0.2 % of the model, and it takes a
tenth of zstd's memory on the device, and no library there.

    delta   = b"edgeml-delta-1\n" header b"\n" xz
    header  = JSON of `Header`: for stretches of the target, where they are in the base
    xz      = target[i] - base[i + shift] (modulo 256); where there is no such base, target[i]

A delta is trusted in nothing: what comes of it is checked against the digest of the target, never
has more bytes than the release says, and unpacking takes no more than `MAX_MEMORY_BYTES`.
"""

import lzma
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import numpy as np

from cloud_sync.release import Blobs
from edgeml.errors import ReleaseError

MAGIC = b"edgeml-delta-1\n"
MIN_BYTES = 16 << 10
MAX_BYTES = 256 << 20
MAX_HEADER_BYTES = 1 << 20
MAX_STRETCHES = 1 << 14
MAX_MEMORY_BYTES = 16 << 20
DICTIONARY_BYTES = 4 << 20
PIECE = 1 << 16
# A delta must be clearly smaller: it costs the device a request and some seconds of its core.
WORTH = 0.75

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_Shift = Annotated[int, msgspec.Meta(ge=-(1 << 40), le=1 << 40)]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """`stretches` are (first byte in the target, shift): from there on `base[i + shift]` counts."""

    size: _Count
    stretches: Annotated[
        tuple[tuple[_Count, _Shift], ...], msgspec.Meta(min_length=1, max_length=MAX_STRETCHES)
    ]


class DeltaOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A delta that the fleet has: from which blob, and its own digest and bytes."""

    base: str
    digest: str
    size: _Count


class DeltaOffers(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet's answer to which deltas lead to a blob."""

    offers: Annotated[tuple[DeltaOffer, ...], msgspec.Meta(max_length=64)] = ()


class DeltaFailed(ReleaseError):  # noqa: N818 -- what the ledger counts is called so
    """A delta did not give the blob; `cause` is one word for the ledger."""

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(
            "A delta did not give the blob.",
            why=why,
            fix="The blob is fetched whole, where the data budget allows it.",
        )
        self.cause = cause


def is_possible(*sizes: int) -> bool:
    """Whether blobs have sizes for which a delta is made at all."""
    return all(MIN_BYTES <= size <= MAX_BYTES for size in sizes)


def is_worth(delta_bytes: int, full_bytes: int) -> bool:
    """Whether a delta is so much smaller than the blob that it is offered."""
    return delta_bytes <= WORTH * full_bytes


def apply(
    blobs: Blobs,
    base: str,
    delta: Path,
    target: str,
    size: int,
    *,
    on_piece: Callable[[], None] = lambda: None,
) -> None:
    """Make a blob of another and a delta; it is there whole and verified, or not at all.

    Args:
        blobs: the store that holds the base and gets the target.
        base: the digest of what the delta was made from.
        delta: the delta's file.
        target: the digest that must come of it.
        size: the target's bytes, as its release says.
        on_piece: called after every piece that was written; may raise to stop.

    Raises:
        DeltaFailed: base or delta is damaged, or something else came of it.
        OSError: the disk cannot be used.
    """
    try:
        blobs.verify(base)
    except ReleaseError as error:
        raise DeltaFailed("base-damaged", str(error)) from error
    try:
        with (
            blobs.writing(target) as beside,
            delta.open("rb") as packed,
            blobs.path(base).open("rb") as known,
            beside.open("wb") as made,
        ):
            for piece in _restored(packed, known, size):
                made.write(piece)
                on_piece()
    except DeltaFailed:
        raise
    except ReleaseError as error:
        raise DeltaFailed("digest-mismatch", str(error)) from error


def subtract(target: bytes, base: BinaryIO, base_size: int, start: int, header: Header) -> bytes:
    """The difference of a piece of the target that begins at `start`."""
    return _combined(target, base, base_size, start, header, sign=-1)


def _restored(packed: BinaryIO, base: BinaryIO, size: int) -> Iterator[bytes]:
    """The target's bytes, piece by piece; never more than `size`.

    Raises:
        DeltaFailed: the delta is damaged, or does not give `size` bytes.
    """
    header = _read_header(packed, size)
    base_size = base.seek(0, 2)
    at = 0
    for piece in _unpacked(packed):
        if at + len(piece) > size:
            raise DeltaFailed("delta-damaged", f"More than {size} bytes come of it.")
        yield _combined(piece, base, base_size, at, header, sign=1)
        at += len(piece)
    if at != size:
        raise DeltaFailed("delta-damaged", f"Only {at} of {size} bytes come of it.")


def _read_header(packed: BinaryIO, size: int) -> Header:
    if packed.read(len(MAGIC)) != MAGIC:
        raise DeltaFailed("delta-damaged", "It does not begin like one.")
    line = packed.readline(MAX_HEADER_BYTES)
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DeltaFailed("delta-damaged", f"Its header cannot be read: {error}.") from error
    if header.size != size:
        raise DeltaFailed("delta-damaged", f"It gives {header.size} bytes, wanted are {size}.")
    starts = [start for start, _ in header.stretches]
    if starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
        raise DeltaFailed("delta-damaged", "Its stretches are not in order.")
    return header


def _unpacked(packed: BinaryIO) -> Iterator[bytes]:
    machine = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_MEMORY_BYTES)
    try:
        while not machine.eof:
            more = packed.read(PIECE) if machine.needs_input else b""
            if machine.needs_input and not more:
                raise DeltaFailed("delta-damaged", "It ends too early.")
            if piece := machine.decompress(more, PIECE):
                yield piece
    except lzma.LZMAError as error:
        raise DeltaFailed("delta-damaged", f"It cannot be unpacked: {error}.") from error
    if machine.unused_data or packed.read(1):
        raise DeltaFailed("delta-damaged", "Something follows its end.")


def _combined(
    piece: bytes, base: BinaryIO, base_size: int, start: int, header: Header, *, sign: int
) -> bytes:
    """A piece that begins at `start` of the target, with what it has in the base added."""
    result = np.frombuffer(piece, np.uint8).copy()
    end = start + len(piece)
    known_first = bisect_right(header.stretches, start, key=lambda stretch: stretch[0]) - 1
    for number in range(known_first, len(header.stretches)):
        first, shift = header.stretches[number]
        if first >= end:
            break
        after = header.stretches[number + 1][0] if number + 1 < len(header.stretches) else end
        low, high = max(first, start, -shift), min(after, end, base_size - shift)
        if low < high:
            base.seek(low + shift)
            known = np.frombuffer(base.read(high - low), np.uint8)
            part = result[low - start : low - start + len(known)]
            (np.add if sign > 0 else np.subtract)(part, known, out=part)
    return result.tobytes()
