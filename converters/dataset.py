"""Calibration and evaluation data: one `Dataset`, streamed sample by sample from an `.npz`.

The arrays are `x` (samples first) and, for evaluation, `y` (one class number a sample). With
a pipeline the samples are region images (`uint8`, height x width, or height x width x 3 in
BGR); without one they are tensors in the model's input layout, without the batch axis.

`x` is never held as a whole: opening a dataset reads it once, to check it and to hash every
sample, and iterating reads it again. Pickle is never loaded. The digest is over the content,
so that two files with the same samples and labels are the same data however they are packed.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from edgeml.errors import ModelError

_CHUNK = 1 << 20
_MAX_LABEL_BYTES = 1 << 28


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one shape and type, read from `path` as they are asked for.

    `sample_digests` are SHA-256 over type, shape and bytes of each sample, `digest` over all
    of them and the labels.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    labels: np.ndarray | None
    sample_digests: tuple[bytes, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.sample_digests)

    def __iter__(self) -> Iterator[np.ndarray]:
        with _stream(self.path, "x") as (stream, shape, dtype):
            yield from _samples(self.path, stream, shape, dtype)


def open_dataset(path: Path) -> Dataset:
    """Open, check and hash the samples of an `.npz`.

    Raises:
        ModelError: there is no such file, it is not an `.npz` or is cut short, `x` is missing,
            empty, not numeric or holds NaN or infinity, or `y` does not fit it.
    """
    with _stream(path, "x") as (stream, shape, dtype):
        if dtype.kind not in "uifb":
            raise ModelError(
                f"The samples in {path} cannot be used.",
                why=f"The array x has the type {dtype}, which is not numeric.",
            )
        if not shape or 0 in shape:
            raise ModelError(
                f"There are no samples in {path}.", why=f"The array x has the shape {shape}."
            )
        digests = []
        for index, sample in enumerate(_samples(path, stream, shape, dtype)):
            if dtype.kind == "f" and not np.isfinite(sample).all():
                raise ModelError(
                    f"Sample {index} in {path} holds NaN or infinity.",
                    fix="Remove or repair such samples.",
                )
            head = f"{dtype.str}{shape[1:]}".encode()
            digests.append(hashlib.sha256(head + sample.tobytes()).digest())
    labels = _labels(path, len(digests))
    whole = hashlib.sha256(b"".join(digests))
    if labels is not None:
        whole.update(b"y" + labels.tobytes())
    return Dataset(
        path=path,
        shape=shape[1:],
        dtype=dtype,
        labels=labels,
        sample_digests=tuple(digests),
        digest=f"sha256:{whole.hexdigest()}",
    )


def refuse_overlap(calibration: Dataset, evaluation: Dataset) -> None:
    """Refuse data in which a sample serves both to calibrate and to judge.

    Raises:
        ModelError: at least one sample is in both; the sentence says how many and which.
    """
    seen = set(evaluation.sample_digests)
    shared = [i for i, digest in enumerate(calibration.sample_digests) if digest in seen]
    if shared:
        raise ModelError(
            f"{len(shared)} of {len(calibration)} calibration samples are also evaluation samples.",
            why=f"The first is calibration sample {shared[0]}; accuracy on samples that set the "
            "ranges says nothing about new ones.",
            fix="Take them out of one of the two files.",
        )


def _labels(path: Path, samples: int) -> np.ndarray | None:
    try:
        with _stream(path, "y") as (stream, shape, dtype):
            if dtype.kind not in "ui" or len(shape) != 1:
                raise ModelError(
                    f"The labels in {path} cannot be used.",
                    why=f"The array y has the type {dtype} and the shape {shape}; "
                    "it must hold one class number a sample.",
                )
            if shape[0] != samples:
                raise ModelError(
                    f"Samples and labels in {path} do not match.",
                    why=f"x holds {samples} samples, y {shape[0]} labels.",
                )
            if dtype.itemsize * shape[0] > _MAX_LABEL_BYTES:
                raise ModelError(f"The labels in {path} are too large.")
            labels = np.frombuffer(_exactly(path, stream, dtype.itemsize * shape[0]), dtype)
            if dtype.kind == "u" and labels.max(initial=0) > np.iinfo(np.int64).max:
                raise ModelError(f"The labels in {path} are out of range.")
            return labels.astype(np.int64)
    except _MissingArrayError:
        return None


class _MissingArrayError(ModelError):
    """The file has no array of this name."""


@contextmanager
def _stream(path: Path, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """Open one array of an `.npz`, header read, at its first element."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise _MissingArrayError(
                    f"There is no array {name} in {path}.",
                    why=f"It holds {', '.join(archive.namelist()[:8]) or 'nothing'}.",
                    fix="Save it with numpy.savez(path, x=samples, y=labels).",
                )
            with archive.open(f"{name}.npy") as stream:
                shape, dtype = _header(path, name, stream)
                yield stream, shape, dtype
    except FileNotFoundError:
        raise ModelError(f"No data file {path}.", why="The path does not exist.") from None
    except IsADirectoryError:
        raise ModelError(
            f"The data in {path} cannot be read.", why="It is a folder, not an .npz file."
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"The data in {path} cannot be read.",
            why=f"It is not a whole .npz file ({error}).",
            fix="Save it with numpy.savez(path, x=samples, y=labels).",
        ) from None
    except OSError as error:
        raise ModelError(f"The data in {path} cannot be read.", why=f"{error.strerror}.") from None


def _header(path: Path, name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        if version not in readers:
            raise ValueError(f"npy version {version}")
        shape, fortran, dtype = readers[version](stream)
    except (ValueError, SyntaxError, TypeError, OverflowError) as error:
        raise ModelError(
            f"The array {name} in {path} cannot be read.",
            why=f"Its header is malformed ({str(error).splitlines()[0]}).",
        ) from None
    if dtype.hasobject:
        raise ModelError(
            f"The array {name} in {path} holds Python objects.",
            why="They would have to be unpickled, which can run any code.",
            fix="Save a plain array of numbers.",
        )
    if fortran and len(shape) > 1:
        raise ModelError(
            f"The array {name} in {path} is in Fortran order.",
            why="Its samples do not follow one another and cannot be streamed.",
            fix="Save numpy.ascontiguousarray(array).",
        )
    return tuple(int(size) for size in shape), dtype


def _samples(
    path: Path, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype
) -> Iterator[np.ndarray]:
    size = dtype.itemsize
    for extent in shape[1:]:
        size *= extent
    for _ in range(shape[0]):
        yield np.frombuffer(_exactly(path, stream, size), dtype).reshape(shape[1:])


def _exactly(path: Path, stream: IO[bytes], size: int) -> bytearray:
    """Read `size` bytes; memory grows with what is there, not with what a header claims."""
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(_CHUNK, size - len(data)))
        if not chunk:
            raise ModelError(
                f"The data in {path} cannot be read.", why="The file ends before its last sample."
            )
        data += chunk
    return data
