"""Makes deltas (`cloud_sync.delta`): finds what belongs together, subtracts, packs.

The two files are aligned by what stands in both exactly once, eight bytes at a time: names and
unchanged weights. Between two such places the alignment is taken to go on, so that weights
which changed in every value still meet their predecessors.
"""

import lzma
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud_sync.delta import DICTIONARY_BYTES, MAGIC, MAX_STRETCHES, PIECE, Header, subtract

MAX_ANCHORS = 1 << 22

_GRAM = 8
_MIN_RUN = 16
_BLOCK = 1 << 20
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
# Four positions are told apart since the bytes of a float32 are of four kinds.
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 9,
        "dict_size": DICTIONARY_BYTES,
        "lc": 1,
        "lp": 2,
        "pb": 2,
    }
]

Anchors = tuple[NDArray[np.uint64], NDArray[np.int64]]


def make(base: Path, target: Path, delta: Path, pause: Callable[[], None] = lambda: None) -> int:
    """Write the delta from one file to another; returns its bytes.

    Args:
        base: what devices have.
        target: what they shall have.
        delta: where the delta goes.
        pause: called between two pieces; may raise to stop.

    Raises:
        OSError: a file cannot be read or written.
    """
    header = Header(size=target.stat().st_size, stretches=stretches(base, target))
    base_size = base.stat().st_size
    packer = lzma.LZMACompressor(format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_FILTERS)
    with base.open("rb") as known, target.open("rb") as wanted, delta.open("wb") as packed:
        packed.write(MAGIC + msgspec.json.encode(header) + b"\n")
        at = 0
        while piece := wanted.read(PIECE):
            pause()
            packed.write(packer.compress(subtract(piece, known, base_size, at, header)))
            at += len(piece)
        packed.write(packer.flush())
        return packed.tell()


def stretches(base: Path, target: Path) -> tuple[tuple[int, int], ...]:
    """Where stretches of the target begin, and how far on each is in the base."""
    keys, places = _once(_anchors(base))
    grams, at = _anchors(target)
    found: list[tuple[int, int]] = [(0, 0)]
    if not len(keys):
        return tuple(found)
    nearest = np.searchsorted(keys, grams)
    nearest[nearest == len(keys)] = 0
    hits = np.flatnonzero(keys[nearest] == grams)
    starts = at[hits]
    if not len(hits):
        return tuple(found)
    shifts = places[nearest[hits]] - starts
    changes = np.flatnonzero(np.diff(shifts, prepend=shifts[:1] - 1))
    for first, last in zip(changes, [*(changes[1:] - 1), len(shifts) - 1], strict=True):
        lasting = starts[last] - starts[first] >= _MIN_RUN
        if lasting and shifts[first] != found[-1][1] and len(found) < MAX_STRETCHES:
            found.append((int(starts[first]), int(shifts[first])))
    return tuple(found[1:] if found[1:] and found[1][0] == 0 else found)


def _anchors(path: Path) -> Anchors:
    """Eight bytes at a time as numbers, and where; of a large file a share, chosen by content."""
    share = max(1, -(-path.stat().st_size // MAX_ANCHORS))
    # The larger of two files may not choose others than the smaller: a power of two nests.
    bits = np.uint64(64 - (share - 1).bit_length()) if share > 1 else None
    grams, places = [], []
    for start, block in _blocks(path):
        made = _grams(block)
        kept = (
            np.arange(len(made)) if bits is None else np.flatnonzero((made * _SPREAD) >> bits == 0)
        )
        grams.append(made[kept])
        places.append(kept.astype(np.int64) + start)
    if not grams:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(grams), np.concatenate(places)


def _blocks(path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    with path.open("rb") as stream:
        start, before = 0, b""
        while piece := stream.read(_BLOCK):
            block = before + piece
            if len(block) >= _GRAM:
                yield start, np.frombuffer(block, np.uint8)
            before = block[-(_GRAM - 1) :]
            start += len(block) - len(before)


def _grams(block: NDArray[np.uint8]) -> NDArray[np.uint64]:
    count = len(block) - _GRAM + 1
    made = np.zeros(count, np.uint64)
    for byte in range(_GRAM):
        made |= block[byte : count + byte].astype(np.uint64) << np.uint64(8 * byte)
    return made


def _once(anchors: Anchors) -> Anchors:
    """Those that stand there exactly once, in order of their number."""
    grams, places = anchors
    order = np.argsort(grams, kind="stable")
    ordered = grams[order]
    new = np.ones(len(ordered) + 1, bool)
    new[1:-1] = ordered[1:] != ordered[:-1]
    once = new[:-1] & new[1:]
    return ordered[once], places[order[once]]
