"""The golden set and a variant's recorded outputs, as blobs: arrays in an npz, never pickled.

Golden inputs are what the pipeline is given (images of the region) or, without a pipeline,
the model's own inputs. Recorded outputs are what a variant answered when it was executed at
the converter, kept by runtime, version and instruction set. The bytes are the same for the
same arrays: entries are stored in a fixed order with a fixed date.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edgeml.errors import ModelError, ReleaseError

MAX_GOLDEN_BYTES = 256 << 20
MAX_ENTRIES = 4096
MAX_DIMENSIONS = 8
_EPOCH = (1980, 1, 1, 0, 0, 0)
_META = "meta.json"

Array = NDArray[Any]


class GoldenSet(msgspec.Struct, frozen=True, kw_only=True):
    """`inputs` [n, ...], `labels` [n] int64 or None, the float model's `outputs`, each [n, ...].

    Of a model with several inputs, `more_inputs` are those behind the first, each [n, ...].
    """

    inputs: Array
    labels: Array | None
    outputs: tuple[Array, ...]
    more_inputs: tuple[Array, ...] = ()

    def samples(self) -> Iterator[tuple[Array, ...]]:
        """Each sample's arrays, in the order of the model's inputs."""
        yield from zip(self.inputs, *self.more_inputs, strict=True)


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant answered to the golden set.

    `tolerance` is the largest absolute difference allowed where runtime, version and
    instruction set are those of the recording (0: bit-equal), `other_tolerance` elsewhere.
    """

    runtime: str
    runtime_version: str
    instruction_set: str
    tolerance: float
    other_tolerance: float
    outputs: tuple[Array, ...]

    @property
    def is_same_everywhere(self) -> bool:
        """Whether these are the bits of every machine: gateware's are."""
        return self.tolerance == self.other_tolerance == 0

    @property
    def made_with(self) -> str:
        """`onnxruntime 1.31.1 on x86-64-avx512_vnni`."""
        return f"{self.runtime} {self.runtime_version} on {self.instruction_set}"


def encode_golden(golden: GoldenSet) -> bytes:
    """The blob of a golden set."""
    arrays = {"inputs": golden.inputs}
    if golden.labels is not None:
        arrays["labels"] = golden.labels.astype(np.int64)
    arrays |= {f"input-{i:03}": array for i, array in enumerate(golden.more_inputs, start=1)}
    arrays |= {f"output-{i:03}": output for i, output in enumerate(golden.outputs)}
    return _encode({"kind": "golden", "version": 1}, arrays)


def decode_golden(data: bytes) -> GoldenSet:
    """Read the blob of a golden set.

    Raises:
        ReleaseError: it is none.
    """
    meta, arrays = _decode(data, "golden")
    inputs = arrays.get("inputs")
    if inputs is None or meta.get("version") != 1:
        raise ReleaseError("The golden set cannot be read.", why="It has no inputs.")
    if "labels" in arrays and arrays["labels"].dtype != np.int64:
        raise ReleaseError("The golden set cannot be read.", why="Its labels are no numbers.")
    golden = GoldenSet(
        inputs=inputs,
        labels=arrays.get("labels"),
        outputs=_all(arrays, "output-"),
        more_inputs=_all(arrays, "input-"),
    )
    if any(len(a) != len(inputs) for a in (*golden.outputs, *golden.more_inputs)) or (
        golden.labels is not None and golden.labels.shape != (len(inputs),)
    ):
        raise ReleaseError("The golden set cannot be read.", why="Its parts differ in length.")
    return golden


def encode_recorded(recordings: list[Recorded]) -> bytes:
    """The blob of a variant's recordings."""
    meta = {
        "kind": "recorded",
        "version": 1,
        "recordings": [
            {
                "runtime": r.runtime,
                "runtime_version": r.runtime_version,
                "instruction_set": r.instruction_set,
                "tolerance": r.tolerance,
                "other_tolerance": r.other_tolerance,
            }
            for r in recordings
        ],
    }
    arrays = {
        f"{i:03}-output-{j:03}": output
        for i, recording in enumerate(recordings)
        for j, output in enumerate(recording.outputs)
    }
    return _encode(meta, arrays)


def decode_recorded(data: bytes) -> list[Recorded]:
    """Read the blob of a variant's recordings.

    Raises:
        ReleaseError: it is none.
    """
    meta, arrays = _decode(data, "recorded")
    entries = meta.get("recordings")
    if meta.get("version") != 1 or not isinstance(entries, list) or not entries:
        raise ReleaseError("The recorded outputs cannot be read.", why="They list no recording.")
    found = []
    for i, entry in enumerate(entries):
        mine = {k.partition("-")[2]: v for k, v in arrays.items() if k.startswith(f"{i:03}-")}
        try:
            found.append(msgspec.convert({**entry, "outputs": ()}, Recorded))
        except (msgspec.ValidationError, TypeError) as error:
            raise ReleaseError("The recorded outputs cannot be read.", why=f"{error}.") from None
        found[-1] = msgspec.structs.replace(found[-1], outputs=_all(mine, "output-"))
        if not found[-1].outputs:
            raise ReleaseError("The recorded outputs cannot be read.", why="One has no outputs.")
    return found


def matching(recordings: list[Recorded], runtime: str, version: str, isa: str) -> Recorded | None:
    """The recording made with exactly this runtime, version and instruction set.

    Or with this runtime alone, where its bits are the same everywhere.
    """
    for recorded in recordings:
        same = (recorded.runtime_version, recorded.instruction_set) == (version, isa)
        if recorded.runtime == runtime and (same or recorded.is_same_everywhere):
            return recorded
    return None


def joined(rows: Sequence[Sequence[Array]]) -> tuple[Array, ...]:
    """The outputs of several samples as arrays [n, ...], one an output of the model.

    Args:
        rows: for each sample the model's outputs; a batch axis of one becomes the first axis,
            and an output without one gets it.

    Raises:
        ModelError: an output's shape differs from sample to sample.
    """
    columns = []
    for column in zip(*rows, strict=True):
        shapes = {part.shape for part in column}
        if len(shapes) > 1:
            raise ModelError(
                "The model's outputs cannot be kept as golden.",
                why="Their shape differs from sample to sample: "
                f"{' and '.join(str(list(shape)) for shape in sorted(shapes)[:2])}.",
                fix="Let the pipeline select results, not the model.",
            )
        has_batch = column[0].shape[:1] == (1,)
        columns.append(np.concatenate(column) if has_batch else np.stack(column))
    return tuple(columns)


def _all(arrays: dict[str, Array], prefix: str) -> tuple[Array, ...]:
    return tuple(arrays[name] for name in sorted(arrays) if name.startswith(prefix))


def _encode(meta: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _store(archive, _META, json.dumps(meta, sort_keys=True).encode())
        for name, array in sorted(arrays.items()):
            part = io.BytesIO()
            npy.write_array(part, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
            _store(archive, f"{name}.npy", part.getvalue())
    return buffer.getvalue()


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data, compresslevel=6)


def _decode(data: bytes, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    what = f"The {kind} blob cannot be read."
    if len(data) > MAX_GOLDEN_BYTES:
        raise ReleaseError(what, why=f"It has {len(data)} bytes.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if len({entry.filename for entry in entries}) != len(entries):
                raise ReleaseError(what, why="A part of it is there twice.")
            if len(entries) > MAX_ENTRIES or total > MAX_GOLDEN_BYTES:
                raise ReleaseError(
                    what, why=f"It unpacks to {total} bytes in {len(entries)} parts."
                )
            meta = json.loads(_part(archive, _META))
            arrays = {
                entry.filename.removesuffix(".npy"): _array(_part(archive, entry.filename))
                for entry in entries
                if entry.filename != _META
            }
    except ReleaseError:
        raise
    except Exception as error:  # noqa: BLE001 -- zipfile, zlib and numpy raise many kinds on bad bytes
        raise ReleaseError(what, why=f"{type(error).__name__}: {error}.") from None
    if not isinstance(meta, dict) or meta.get("kind") != kind:
        raise ReleaseError(what, why="It is of another kind.")
    return meta, arrays


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    entry = archive.getinfo(name)
    with archive.open(entry) as stream:
        data = stream.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        raise ReleaseError("A blob's part is longer than it says.", why=name)
    return data


def _array(data: bytes) -> Array:
    """One array in the npy format 1.0: numbers only, and exactly as many as its shape says."""
    stream = io.BytesIO(data)
    if npy.read_magic(stream) != (1, 0):
        raise ReleaseError("A blob's array is of another format.")
    shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    if dtype.kind not in "biuf" or fortran_order or not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise ReleaseError("A blob's array is not plain numbers.", why=f"It has {dtype}, {shape}.")
    # Before any memory is taken for it: a header may claim any shape.
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ReleaseError("A blob's array is not as long as its shape says.", why=f"{shape}.")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape).copy()
