"""Golden sets and recorded outputs as blobs."""

import contextlib
import json
import pickle
import zipfile
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from msgspec.structs import replace

from cloud_sync.golden import (
    MAX_GOLDEN_BYTES,
    Array,
    GoldenSet,
    Recorded,
    decode_golden,
    decode_recorded,
    encode_golden,
    encode_recorded,
    joined,
    matching,
)
from edgeml.errors import ModelError, ReleaseError

GOLDEN = GoldenSet(
    inputs=np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    labels=np.array([1, 0]),
    outputs=(np.ones((2, 3), np.float32),),
)
RECORDED = Recorded(
    runtime="onnxruntime",
    runtime_version="1.0",
    instruction_set="x86-64-avx2",
    tolerance=0.0,
    other_tolerance=0.1,
    outputs=(np.ones((2, 3), np.float32),),
)


def test_a_golden_set_comes_back_and_has_the_same_bytes_each_time() -> None:
    data = encode_golden(GOLDEN)
    assert data == encode_golden(GOLDEN)
    again = decode_golden(data)
    np.testing.assert_array_equal(again.inputs, GOLDEN.inputs)
    assert again.labels is not None
    np.testing.assert_array_equal(again.labels, [1, 0])
    np.testing.assert_array_equal(again.outputs[0], GOLDEN.outputs[0])


def test_further_inputs_of_a_model_come_back_in_their_order() -> None:
    more = (np.arange(2, dtype=np.float32), np.arange(8).reshape(2, 4))
    again = decode_golden(encode_golden(replace(GOLDEN, more_inputs=more)))
    for sample, wanted in zip(again.samples(), zip(GOLDEN.inputs, *more, strict=True), strict=True):
        for array, want in zip(sample, wanted, strict=True):
            np.testing.assert_array_equal(array, want)
    with pytest.raises(ReleaseError, match="differ in length"):
        decode_golden(encode_golden(replace(GOLDEN, more_inputs=(np.arange(3),))))


def test_outputs_of_samples_are_joined_with_or_without_a_batch_axis() -> None:
    rows = [[np.full((1, 3), i), np.full((2, 3), i), np.float32(i)] for i in range(4)]
    assert [array.shape for array in joined(rows)] == [(4, 3), (4, 2, 3), (4,)]
    with pytest.raises(ModelError, match=r"\[2\] and \[3\]"):
        joined([[np.zeros(2)], [np.zeros(3)]])


def test_recordings_are_found_by_runtime_version_and_instruction_set() -> None:
    [found] = decode_recorded(encode_recorded([RECORDED]))
    assert found.made_with == "onnxruntime 1.0 on x86-64-avx2"
    assert matching([found], "onnxruntime", "1.0", "x86-64-avx2") is found
    assert matching([found], "onnxruntime", "1.1", "x86-64-avx2") is None


def test_one_kind_is_not_taken_for_the_other() -> None:
    with pytest.raises(ReleaseError, match="another kind"):
        decode_golden(encode_recorded([RECORDED]))


def test_a_pickle_is_never_loaded() -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("the pickle was loaded",))

    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("meta.json", '{"kind": "golden", "version": 1}')
        part = BytesIO()
        np.lib.format.write_array_header_1_0(
            part, {"descr": "|O", "fortran_order": False, "shape": (1,)}
        )
        archive.writestr("inputs.npy", part.getvalue() + pickle.dumps([Evil()]))
    with pytest.raises(ReleaseError):
        decode_golden(buffer.getvalue())


def blob(parts: dict[str, bytes], **meta: object) -> bytes:
    """A golden blob with these parts, whatever they are."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", json.dumps({"kind": "golden", "version": 1} | meta))
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(descr: str, shape: tuple[int, ...], data: bytes = b"", *, fortran: bool = False) -> bytes:
    part = BytesIO()
    np.lib.format.write_array_header_1_0(
        part, {"descr": descr, "fortran_order": fortran, "shape": shape}
    )
    return part.getvalue() + data


@pytest.mark.parametrize(
    ("part", "word"),
    [
        (npy("<f4", (1 << 40,), b"1234"), "not as long as its shape"),
        (npy("<f4", (-1,), b"1234"), "not as long as its shape"),
        (npy("<f4", (2,), b"1234"), "not as long as its shape"),
        (npy("|O", (1,), b"12345678"), "not plain numbers"),
        (npy("<U1", (1,), b"1234"), "not plain numbers"),
        (npy("<M8[s]", (1,), b"12345678"), "not plain numbers"),
        (npy("<f4", (), b"1234"), "not plain numbers"),
        (npy("<f4", (1,) * 9, b"1234"), "not plain numbers"),
        (npy("<f4", (1,), b"1234", fortran=True), "not plain numbers"),
        (b"\x93NUMPY\x02\x00" + npy("<f4", (1,), b"1234")[8:], "another format"),
        (b"no npy", "cannot be read"),
    ],
)
def test_an_array_that_is_not_plain_numbers_is_refused_before_it_takes_memory(
    part: bytes, word: str
) -> None:
    with pytest.raises(ReleaseError, match=word):
        decode_golden(blob({"inputs.npy": part}))


def test_a_blob_that_unpacks_to_far_more_than_it_is_is_refused() -> None:
    bomb = blob({"inputs.npy": npy("|u1", (MAX_GOLDEN_BYTES,), bytes(MAX_GOLDEN_BYTES))})
    assert len(bomb) < MAX_GOLDEN_BYTES / 100
    with pytest.raises(ReleaseError, match="unpacks to"):
        decode_golden(bomb)


@pytest.mark.parametrize(
    ("golden", "word"),
    [
        (replace(GOLDEN, labels=np.zeros(3, np.int64)), "differ in length"),
        (replace(GOLDEN, labels=np.zeros((2, 1), np.int64)), "differ in length"),
        (replace(GOLDEN, outputs=(np.ones((3, 3), np.float32),)), "differ in length"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(golden: GoldenSet, word: str) -> None:
    with pytest.raises(ReleaseError, match=word):
        decode_golden(encode_golden(golden))


def test_what_lacks_a_part_or_is_of_another_version_is_refused() -> None:
    one = npy("<f4", (1,), b"1234")
    for parts, meta in (({}, {}), ({"inputs.npy": one}, {"version": 2})):
        with pytest.raises(ReleaseError, match="has no inputs"):
            decode_golden(blob(parts, **meta))
    with pytest.raises(ReleaseError, match="labels are no numbers"):
        decode_golden(blob({"inputs.npy": one, "labels.npy": one}))
    with pytest.raises(ReleaseError, match="list no recording"):
        decode_recorded(blob({}, kind="recorded"))
    with pytest.raises(ReleaseError, match="has no outputs"):
        decode_recorded(encode_recorded([replace(RECORDED, outputs=())]))


@given(
    arrays(
        st.sampled_from([np.uint8, np.int64, np.float32, np.float16, np.bool_]),
        array_shapes(max_dims=4, max_side=4),
    )
)
def test_every_array_of_numbers_comes_back_bit_by_bit(array: Array) -> None:
    golden = GoldenSet(inputs=array, labels=None, outputs=(array[::-1],))
    data = encode_golden(golden)
    again = decode_golden(data)
    assert encode_golden(again) == data
    assert (again.inputs.dtype, again.inputs.shape) == (array.dtype, array.shape)
    assert again.inputs.tobytes() == array.tobytes()
    assert again.outputs[0].tobytes() == array[::-1].tobytes()


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_error(data: bytes) -> None:
    for decode in (decode_golden, decode_recorded):
        with contextlib.suppress(ReleaseError):
            decode(data)


@given(st.data())
def test_no_damage_raises_anything_but_our_error(data: st.DataObject) -> None:
    good = bytearray(encode_golden(GOLDEN))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ReleaseError):
        decode_golden(bytes(good))
