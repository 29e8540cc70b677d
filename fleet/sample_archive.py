"""Captured frames as a tar that is made while it is sent: their table first, then the frames.

    samples.jsonl         a line a frame, as `fleet.resources.SampleInfo`
    <digest's hex>.png    a frame, in the order of the table; .npy of what is no picture

A frame that went meanwhile is left out.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from cloud_sync.samples import MediaType
from fleet.resources import SampleInfo
from fleet.samples import SampleFolder

MEDIA_TYPE = "application/x-tar"
TABLE = "samples.jsonl"
_PIECE = 256 << 10


def name_of(sample: SampleInfo) -> str:
    """The name of a frame's file in the archive."""
    return sample["digest"].removeprefix("sha256:") + MediaType(sample["media_type"]).suffix


def archive(folder: SampleFolder, samples: Sequence[SampleInfo]) -> Iterator[bytes]:
    """The bytes of the tar."""
    table = "".join(json.dumps(sample) + "\n" for sample in samples).encode()
    yield from _member(TABLE, len(table), iter((table,)))
    for sample in samples:
        yield from _frame(_path(folder, sample), name_of(sample))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _path(folder: SampleFolder, sample: SampleInfo) -> Path:
    suffix = MediaType(sample["media_type"]).suffix
    return folder.path(sample["model"], sample["device"], sample["digest"], suffix)


def _frame(path: Path, name: str) -> Iterator[bytes]:
    try:
        stream = path.open("rb")
    except OSError:
        return
    with stream:
        yield from _member(name, os.fstat(stream.fileno()).st_size, _pieces(stream))


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _member(name: str, size: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o600
    yield header.tobuf(tarfile.USTAR_FORMAT)
    yield from pieces
    yield bytes(-size % tarfile.BLOCKSIZE)
