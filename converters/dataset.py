"""Calibration and evaluation data: one `Dataset`, streamed sample by sample.

Three sources, `open_dataset` tells them apart:

- an `.npz` with `x` (samples first) and labels `y`: class numbers [N], texts [N], or boxes
  [N, M, 4] as x1 y1 x2 y2 with `count` [N] and `classes` [N, M]. For a model with several
  inputs the samples are one array an input, named like it;
- a folder of images, one sub-folder a class or with a `labels.csv` (`converters.sources.images`);
- `module:function`, a function that yields samples or (sample, label)
  (`converters.sources.function`).

With a pipeline the samples are region images (`uint8`, height x width, or height x width x 3
in BGR); without one they are tensors in the model's input layout, without the batch axis.

Samples are never held as a whole: opening a dataset goes over them once, to check and to hash
each, and iterating goes over them again. The digest is over the content, so that the same
samples and labels are the same data whatever they come from.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from converters.attribute import names_attribute
from converters.sources.function import FunctionSource
from converters.sources.images import ImageSource
from converters.sources.interface import Sample, Source, named
from converters.sources.labels import Boxes, Labels
from converters.sources.npz import NpzSource
from edgeml.errors import ModelError

__all__ = [
    "Boxes",
    "Dataset",
    "Labels",
    "Sample",
    "SampleArray",
    "each_once",
    "open_dataset",
    "refuse_overlap",
]

VARIES = -1  # an axis on which samples differ


class SampleArray(msgspec.Struct, frozen=True):
    """One array of every sample: its name (`x` for an only one), shape and type.

    An axis is `VARIES` where samples differ in it; samples of different rank have the
    shape (`VARIES`,).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one type, read from `path` as they are asked for.

    `path` is a file, a folder or `module:function`. Iterating yields an array a sample, or,
    where `is_mapping`, a dict of arrays by input name. `sample_digests` are SHA-256 over
    type, shape and bytes of each sample, `digest` over all of them and the labels.

    `repeated` samples of the source equal an earlier one and are passed over (`each_once`);
    `relabelled` of them have another label than that one.
    """

    path: Path
    source: Source
    arrays: tuple[SampleArray, ...]
    is_mapping: bool
    annotation: Labels | None
    sample_digests: tuple[bytes, ...]
    digest: str
    sample_bytes: int
    repeated: int = 0
    relabelled: int = 0

    def __len__(self) -> int:
        return len(self.sample_digests)

    def __iter__(self) -> Iterator[Sample]:
        """Go over the samples once.

        Raises:
            ModelError: they are not those that were opened.
        """
        count = 0
        seen: set[bytes] = set()
        for sample, _ in self.source.samples():
            digest = _digest(sample)
            if digest in seen:
                continue
            if count >= len(self) or digest != self.sample_digests[count]:
                raise self._changed(count)
            if self.repeated:
                seen.add(digest)
            count += 1
            yield sample
        if count != len(self):
            raise self._changed(count)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample; of its first array where there are several."""
        return self.arrays[0].shape

    @property
    def dtype(self) -> np.dtype:
        """The type of a sample; of its first array where there are several."""
        return self.arrays[0].dtype

    @property
    def labels(self) -> np.ndarray | None:
        """The labels' array, one row a sample; int64 [N] for class numbers."""
        return None if self.annotation is None else self.annotation.y

    @property
    def duplicates(self) -> int:
        """How many samples equal an earlier one."""
        return len(self) - len(set(self.sample_digests))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know of the samples that are passed over, as sentences; none without any."""
        if not self.repeated:
            return ()
        repeat = "repeats another" if self.repeated == 1 else "repeat others"
        have = "has" if self.relabelled == 1 else "have"
        said = (
            f"{self.repeated} of {len(self) + self.repeated} evaluation samples {repeat}: "
            "each counts once."
        )
        if self.relabelled:
            said += f" {self.relabelled} of them {have} another label than the first, which counts."
        return (said,)

    def label(self, index: int) -> Any:
        """A sample's label: an int, a float, a text, `Boxes`, or a row; None without labels."""
        return None if self.annotation is None else self.annotation.of(index)

    def _changed(self, index: int) -> ModelError:
        return ModelError(
            f"The samples of {self.path} changed while they were used.",
            why=f"Sample {index} is not the one that the first pass saw.",
            fix="A function must yield the same samples at each call: seed what is random.",
        )


def open_dataset(
    source: str | Path, inputs: Sequence[str] = (), classes: Sequence[str] = ()
) -> Dataset:
    """Open a source of samples, check and hash each.

    Args:
        source: an `.npz`, a folder of images, or `module:function`.
        inputs: the names of the model's inputs.
        classes: the names of its classes, where a pipeline says them.

    Raises:
        ModelError: there is no such source, it is damaged or empty, a sample is not numeric
            or holds NaN or infinity, or labels do not fit the samples.
        UserError: the module or its function cannot be found.
    """
    path = Path(source)
    opened = _source(path, inputs, classes)
    scan = _Scan(path)
    for sample, label in opened.samples():
        scan.add(sample, label)
    if not scan.digests:
        raise ModelError(f"There are no samples in {path}.", why="It yielded none.")
    annotation = opened.labels(scan.labels)
    return Dataset(
        path=path,
        source=opened,
        arrays=tuple(scan.arrays.values()),
        is_mapping=scan.is_mapping,
        annotation=annotation,
        sample_digests=tuple(scan.digests),
        digest=_digest_of_all(scan.digests, annotation),
        sample_bytes=scan.sample_bytes,
    )


def each_once(data: Dataset) -> Dataset:
    """The data without samples that equal an earlier one; what is left has the first's label.

    Statistics over samples take each for a draw of its own: one that comes ten times would
    count as ten times the proof that it is.
    """
    firsts: dict[bytes, int] = {}
    relabelled = 0
    for index, digest in enumerate(data.sample_digests):
        first = firsts.setdefault(digest, index)
        if index != first and data.annotation and not data.annotation.same(first, index):
            relabelled += 1
    if len(firsts) == len(data):
        return data
    annotation = None if data.annotation is None else data.annotation.at(list(firsts.values()))
    return msgspec.structs.replace(
        data,
        annotation=annotation,
        sample_digests=tuple(firsts),
        digest=_digest_of_all(list(firsts), annotation),
        repeated=len(data) - len(firsts),
        relabelled=relabelled,
    )


def refuse_overlap(calibration: Dataset, evaluation: Dataset) -> None:
    """Refuse data in which a sample serves both to calibrate and to judge.

    The same values in another type or shape are the same sample; floats are compared as
    rounded to the narrowest float type that either is saved in, at most float32.

    Raises:
        ModelError: at least one sample is in both; the sentence says how many and which.
    """
    one, other = calibration.sample_digests, evaluation.sample_digests
    arrays = (*calibration.arrays, *evaluation.arrays)
    if [(a.dtype, a.shape) for a in calibration.arrays] != [
        (a.dtype, a.shape) for a in evaluation.arrays
    ] or any(a.dtype == np.float64 for a in arrays):  # may have been widened from float32
        common = _common_type([a.dtype for a in arrays])
        one, other = (
            tuple(_digest_of_values(sample, common) for sample in data)
            for data in (calibration, evaluation)
        )
    seen = set(other)
    shared = [i for i, digest in enumerate(one) if digest in seen]
    if shared:
        raise ModelError(
            f"{len(shared)} of {len(calibration)} calibration samples are also evaluation samples.",
            why=f"The first is calibration sample {shared[0]}; accuracy on samples that set the "
            "ranges says nothing about new ones.",
            fix="Take them out of one of the two files.",
        )


def _source(path: Path, inputs: Sequence[str], classes: Sequence[str]) -> Source:
    if path.is_dir():
        return ImageSource(path, classes)
    if not path.exists() and names_attribute(str(path)):
        return FunctionSource(str(path))
    return NpzSource(path, inputs)


class _Scan:
    """What one pass over all samples gathers; a few bytes a sample."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.arrays: dict[str, SampleArray] = {}
        self.digests: list[bytes] = []
        self.labels: list[Any] = []
        self.is_mapping = False
        self.sample_bytes = 0

    def add(self, sample: Sample, label: Any) -> None:
        """Check a sample, hash it, and keep its label.

        Raises:
            ModelError: it holds NaN or infinity, or its type is not that of the others.
        """
        index, arrays = len(self.digests), named(sample)
        if index == 0:
            self.is_mapping = arrays is sample
            self.arrays = {n: SampleArray(n, a.shape, a.dtype) for n, a in arrays.items()}
        if arrays.keys() != self.arrays.keys():
            raise ModelError(
                f"Sample {index} in {self._path} is not like the others.",
                why=f"It holds {', '.join(arrays)}, the first {', '.join(self.arrays)}.",
            )
        for name, array in arrays.items():
            self.arrays[name] = self._widened(self.arrays[name], array)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ModelError(
                    f"Sample {index} in {self._path} holds NaN or infinity.",
                    fix="Remove or repair such samples.",
                )
        self.digests.append(_digest(sample))
        self.labels.append(label)
        self.sample_bytes = max(self.sample_bytes, sum(a.nbytes for a in arrays.values()))

    def _widened(self, known: SampleArray, array: np.ndarray) -> SampleArray:
        if array.dtype != known.dtype:
            raise ModelError(
                f"Sample {len(self.digests)} in {self._path} is not like the others.",
                why=f"It is {array.dtype}, the first is {known.dtype}.",
            )
        if array.shape == known.shape:
            return known
        if len(array.shape) != len(known.shape):
            return SampleArray(known.name, (VARIES,), known.dtype)
        shape = tuple(
            has if has == is_ else VARIES for has, is_ in zip(known.shape, array.shape, strict=True)
        )
        return SampleArray(known.name, shape, known.dtype)


def _common_type(dtypes: Sequence[np.dtype]) -> np.dtype:
    """A type in which values that were saved in any of these can be compared."""
    floats = [dtype for dtype in dtypes if dtype.kind == "f"]
    if not floats:
        return np.dtype(np.int64)
    return min((*floats, np.dtype(np.float32)), key=lambda dtype: dtype.itemsize)


def _digest_of_values(sample: Sample, common: np.dtype) -> bytes:
    digest = hashlib.sha256()
    for array in named(sample).values():
        with np.errstate(over="ignore"):
            digest.update(array.astype(common).tobytes() + b"\0")
    return digest.digest()


def _digest_of_all(samples: Sequence[bytes], annotation: Labels | None) -> str:
    whole = hashlib.sha256(b"".join(samples))
    if annotation is not None:
        annotation.add_to(whole)
    return f"sha256:{whole.hexdigest()}"


def _digest(sample: Sample) -> bytes:
    digest = hashlib.sha256()
    arrays = named(sample)
    for name, array in arrays.items():
        if arrays is sample:
            digest.update(name.encode() + b"\0")
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()
