"""Samples from an `.npz`: read one after the other, never as a whole; pickle is never loaded."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from converters.sources.labels import MAX_LABEL_BYTES, Labels, checked
from edgeml.errors import ModelError

_CHUNK = 1 << 20
_FIX = "Save it with numpy.savez(path, x=samples, y=labels)."
_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Array(msgspec.Struct, frozen=True):
    """One array of the archive, header read, its stream at the first element."""

    name: str
    stream: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype


class NpzSource:
    """The array `x`, or the arrays named like a model's `inputs`."""

    def __init__(self, path: Path, inputs: Sequence[str] = ()) -> None:
        self._path = path
        self._inputs = tuple(inputs)

    def samples(self) -> Iterator[tuple[Any, Any]]:
        """One pass over the arrays of samples, which are read side by side."""
        with _opened(self._path) as archive, ExitStack() as stack:
            names = self._names(archive)
            arrays = [_array(self._path, archive, name, stack) for name in names]
            for array in arrays:
                self._check(array, arrays[0])
            for _ in range(arrays[0].shape[0]):
                rows = [_row(self._path, array) for array in arrays]
                if len(names) == 1:
                    yield rows[0], None
                else:
                    yield dict(zip(names, rows, strict=True)), None

    def labels(self, seen: list[Any]) -> Labels | None:
        """The arrays `y`, `count` and `classes`, as far as they are there."""
        found = {}
        with _opened(self._path) as archive, ExitStack() as stack:
            for name in ("y", "count", "classes"):
                if name in self._inputs or f"{name}.npy" not in archive.namelist():
                    continue
                array = _array(self._path, archive, name, stack)
                found[name] = _whole(self._path, array)
        if "y" not in found:
            return None
        return checked(self._path, len(seen), found)

    def _names(self, archive: zipfile.ZipFile) -> tuple[str, ...]:
        here = archive.namelist()
        if len(self._inputs) > 1:
            missing = [name for name in self._inputs if f"{name}.npy" not in here]
            if missing:
                raise ModelError(
                    f"There is no array {missing[0]} in {self._path}.",
                    why=f"The model has the inputs {', '.join(self._inputs)}; the file holds "
                    f"{_contents(here)}.",
                    fix="Save one array an input, named like it.",
                )
            return self._inputs
        if "x.npy" not in here and self._inputs and f"{self._inputs[0]}.npy" in here:
            return self._inputs
        if "x.npy" not in here:
            raise ModelError(
                f"There is no array x in {self._path}.",
                why=f"It holds {_contents(here)}.",
                fix=_FIX,
            )
        return ("x",)

    def _check(self, array: _Array, first: _Array) -> None:
        if array.dtype.kind not in "uifb":
            raise ModelError(
                f"The samples in {self._path} cannot be used.",
                why=f"The array {array.name} has the type {array.dtype}, which is not numeric.",
            )
        if not array.shape or 0 in array.shape:
            raise ModelError(
                f"There are no samples in {self._path}.",
                why=f"The array {array.name} has the shape {array.shape}.",
            )
        if array.shape[0] != first.shape[0]:
            raise ModelError(
                f"The arrays in {self._path} do not match.",
                why=f"{first.name} holds {first.shape[0]} samples, {array.name} {array.shape[0]}.",
            )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise ModelError(f"No data file {path}.", why="The path does not exist.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"The data in {path} cannot be read.",
            why=f"It is not a whole .npz file ({error}).",
            fix=_FIX,
        ) from None
    except OSError as error:
        raise ModelError(f"The data in {path} cannot be read.", why=f"{error.strerror}.") from None


def _contents(names: list[str]) -> str:
    return ", ".join(names[:8]) or "nothing"


def _array(path: Path, archive: zipfile.ZipFile, name: str, stack: ExitStack) -> _Array:
    stream = stack.enter_context(archive.open(f"{name}.npy"))
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADER_READERS:
            raise ValueError(f"npy version {version}")
        shape, fortran, dtype = _HEADER_READERS[version](stream)
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
    return _Array(name, stream, tuple(int(size) for size in shape), dtype)


def _whole(path: Path, array: _Array) -> np.ndarray:
    size = _bytes_of(array.shape, array.dtype)
    if size > MAX_LABEL_BYTES:
        raise ModelError(f"The labels in {path} are too large.")
    if 0 in array.shape or array.dtype.itemsize == 0:
        return np.zeros(array.shape, array.dtype)
    try:
        data = _exactly(path, array.stream, size)
        return np.frombuffer(data, array.dtype).reshape(array.shape)
    except ValueError as error:
        raise ModelError(f"The labels in {path} cannot be read.", why=f"{error}.") from None


def _row(path: Path, array: _Array) -> np.ndarray:
    data = _exactly(path, array.stream, _bytes_of(array.shape[1:], array.dtype))
    return np.frombuffer(data, array.dtype).reshape(array.shape[1:])


def _bytes_of(shape: Sequence[int], dtype: np.dtype) -> int:
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    return size


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
