"""Golden sets and recorded outputs as blobs."""

import contextlib
import pickle
import zipfile
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.golden import (
    GoldenSet,
    Recorded,
    decode_golden,
    decode_recorded,
    encode_golden,
    encode_recorded,
    matching,
)
from edgeml.errors import ReleaseError

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
