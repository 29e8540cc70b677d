"""Data are streamed, hashed and checked before anything is computed with them."""

import io
import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.dataset import Dataset, each_once, open_dataset, refuse_overlap
from edgeml.errors import EdgemlError, ExitCode, ModelError, exit_code_of


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_samples_and_labels_come_back_as_they_were_saved(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    data = open_dataset(save(tmp_path / "d.npz", x=x, y=np.array([0, 2, 1, 0], np.uint8)))
    assert (len(data), data.shape, data.dtype) == (4, (2, 3), np.float32)
    np.testing.assert_array_equal(np.stack(list(data)), x)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 2, 1, 0]


def test_data_without_labels_have_none(tmp_path: Path) -> None:
    assert open_dataset(save(tmp_path / "d.npz", x=np.zeros((2, 3)))).labels is None


def test_the_digest_is_that_of_the_content_not_of_the_file(tmp_path: Path) -> None:
    x, y = np.arange(12.0).reshape(4, 3), np.arange(4)
    plain = open_dataset(save(tmp_path / "a.npz", x=x, y=y))
    np.savez_compressed(tmp_path / "b.npz", y=y, x=x, more=np.zeros(9))
    assert open_dataset(tmp_path / "b.npz").digest == plain.digest


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.arange(12.0).reshape(4, 3)[::-1]},
        {"x": np.arange(12.0).reshape(4, 3), "y": np.arange(4)},
        {"x": np.arange(12.0).reshape(2, 6)},
        {"x": np.arange(12.0, dtype=np.float32).reshape(4, 3)},
    ],
)
def test_other_content_has_another_digest(tmp_path: Path, other: dict[str, np.ndarray]) -> None:
    first = open_dataset(save(tmp_path / "a.npz", x=np.arange(12.0).reshape(4, 3)))
    assert open_dataset(save(tmp_path / "b.npz", **other)).digest != first.digest


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "big.npz", x=np.random.default_rng(0).random((400, 128, 128), np.float32))
    tracemalloc.start()
    for _ in open_dataset(tmp_path / "big.npz"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20, "26 MB of samples went by"


def test_a_sample_that_calibrates_and_judges_is_refused_and_named(tmp_path: Path) -> None:
    x = np.arange(30.0).reshape(10, 3)
    a = open_dataset(save(tmp_path / "a.npz", x=x[:6]))
    b = open_dataset(save(tmp_path / "b.npz", x=x[4:]))
    with pytest.raises(ModelError, match="2 of 6 calibration samples") as caught:
        refuse_overlap(a, b)
    assert "calibration sample 4" in caught.value.why
    refuse_overlap(a, open_dataset(save(tmp_path / "c.npz", x=x[6:])))


def test_a_sample_is_the_same_in_another_type_and_shape(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (8, 4, 3)).astype(np.uint8)
    a = open_dataset(save(tmp_path / "a.npz", x=x[:5]))
    for other in (x[3:].astype(np.float32), x[3:].reshape(-1, 1, 4, 3)):
        with pytest.raises(ModelError, match="2 of 5 calibration samples"):
            refuse_overlap(a, open_dataset(save(tmp_path / "b.npz", x=other)))
    refuse_overlap(a, open_dataset(save(tmp_path / "c.npz", x=x[5:].astype(np.float32))))


@pytest.mark.parametrize("one", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("other", [np.float16, np.float32, np.float64])
def test_a_sample_is_the_same_however_its_floats_were_rounded(
    tmp_path: Path, one: type, other: type
) -> None:
    x = np.random.default_rng(0).normal(size=(8, 4, 3))
    a = open_dataset(save(tmp_path / "a.npz", x=x[:5].astype(one)))
    with pytest.raises(ModelError, match="2 of 5 calibration samples"):
        refuse_overlap(a, open_dataset(save(tmp_path / "b.npz", x=x[3:].astype(other))))
    refuse_overlap(a, open_dataset(save(tmp_path / "c.npz", x=x[5:].astype(other))))


def test_a_sample_that_was_rounded_and_widened_again_is_the_same(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, 9))
    a = open_dataset(save(tmp_path / "a.npz", x=x))
    b = open_dataset(save(tmp_path / "b.npz", x=x.astype(np.float32).astype(np.float64)))
    with pytest.raises(ModelError, match="4 of 4 calibration samples"):
        refuse_overlap(a, b)


def test_integers_are_not_rounded_to_be_compared(tmp_path: Path) -> None:
    x = np.array([[1 << 24], [(1 << 24) + 1]])
    a = open_dataset(save(tmp_path / "a.npz", x=x[:1].astype(np.int32)))
    refuse_overlap(a, open_dataset(save(tmp_path / "b.npz", x=x[1:].astype(np.int64))))


def test_samples_may_be_named_like_the_models_only_input(tmp_path: Path) -> None:
    x = np.arange(6.0).reshape(2, 3)
    named = open_dataset(save(tmp_path / "a.npz", image=x, y=np.arange(2)), ["image"])
    usual = open_dataset(save(tmp_path / "b.npz", x=x, y=np.arange(2)), ["image"])
    assert named.digest == usual.digest
    with pytest.raises(ModelError, match="no array x"):
        open_dataset(tmp_path / "a.npz", ["other"])


def test_texts_are_labels(tmp_path: Path) -> None:
    texts = np.array(["Grüße", "b"])
    data = open_dataset(save(tmp_path / "d.npz", x=np.arange(2), y=texts))
    assert [data.label(0), data.label(1)] == ["Grüße", "b"]
    wider = open_dataset(save(tmp_path / "e.npz", x=np.arange(2), y=texts.astype("<U30")))
    assert wider.digest == data.digest
    other = open_dataset(save(tmp_path / "f.npz", x=np.arange(2), y=np.array(["Grüß", "eb"])))
    assert other.digest != data.digest


def test_boxes_are_labels_with_how_many_there_are_and_of_which_class(tmp_path: Path) -> None:
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    classes = np.array([[1, 2, 0], [0, 0, 0]])
    data = open_dataset(
        save(tmp_path / "d.npz", x=np.arange(2), y=boxes, count=np.array([2, 0]), classes=classes)
    )
    assert data.label(0).boxes.tolist() == boxes[0, :2].tolist()
    assert data.label(0).classes.tolist() == [1, 2]
    assert len(data.label(1).boxes) == 0
    plain = open_dataset(save(tmp_path / "e.npz", x=np.arange(2), y=boxes))
    assert plain.label(1).boxes.shape == (3, 4)
    assert plain.label(1).classes.tolist() == [0, 0, 0]
    assert plain.digest != data.digest


def test_any_other_rows_are_labels_for_a_metric_of_ones_own(tmp_path: Path) -> None:
    masks = np.zeros((2, 5, 5), np.uint8)
    data = open_dataset(save(tmp_path / "d.npz", x=np.arange(2), y=masks))
    assert data.label(1).shape == (5, 5)
    data = open_dataset(save(tmp_path / "d.npz", x=np.arange(2), y=np.array([0.5, 1])))
    assert data.label(0) == 0.5


def test_without_labels_a_label_is_none(tmp_path: Path) -> None:
    assert open_dataset(save(tmp_path / "d.npz", x=np.arange(2))).label(0) is None


def test_samples_that_equal_an_earlier_one_are_counted(tmp_path: Path) -> None:
    data = open_dataset(save(tmp_path / "d.npz", x=np.array([3, 1, 3, 3, 2])))
    assert data.duplicates == 2


def test_a_sample_that_comes_several_times_counts_once_with_its_first_label(
    tmp_path: Path,
) -> None:
    x, y = np.array([3, 1, 3, 3, 2]), np.array([0, 1, 0, 7, 2])
    opened = open_dataset(save(tmp_path / "d.npz", x=x, y=y))
    data = each_once(opened)
    assert [int(sample) for sample in data] == [3, 1, 2]
    assert len(data) == len(data.sample_digests) == 3
    assert [data.label(i) for i in range(3)] == [0, 1, 2]
    [remark] = data.remarks
    assert remark.startswith("2 of 5 evaluation samples repeat others: each counts once.")
    assert remark.endswith("1 of them has another label than the first, which counts.")
    distinct = open_dataset(save(tmp_path / "e.npz", x=x[[0, 1, 4]], y=y[[0, 1, 4]]))
    assert data.digest == distinct.digest != opened.digest
    assert each_once(distinct) is distinct
    assert distinct.remarks == ()
    save(tmp_path / "d.npz", x=x[::-1], y=y)
    with pytest.raises(ModelError, match="changed while they were used"):
        list(data)


def test_boxes_of_samples_that_come_several_times_stay_with_their_samples(tmp_path: Path) -> None:
    boxes = np.arange(36.0).reshape(3, 3, 4)
    boxes[1] = boxes[0]
    arrays = {"y": boxes, "count": np.array([2, 2, 1]), "classes": np.arange(9).reshape(3, 3)}
    data = each_once(open_dataset(save(tmp_path / "d.npz", x=np.array([4, 4, 5]), **arrays)))
    assert (data.repeated, data.relabelled) == (1, 1), "other classes are another label"
    assert data.label(1).boxes.tolist() == boxes[2, :1].tolist()
    assert data.label(1).classes.tolist() == [6]


def test_a_model_with_several_inputs_has_an_array_an_input(tmp_path: Path) -> None:
    ids, state = np.arange(6).reshape(3, 2), np.arange(12.0).reshape(3, 2, 2)
    path = save(tmp_path / "d.npz", ids=ids, state=state, y=np.arange(3))
    data = open_dataset(path, inputs=["ids", "state"])
    assert data.is_mapping
    assert [a.name for a in data.arrays] == ["ids", "state"]
    sample = list(data)[1]
    assert sample["ids"].tolist() == [2, 3]
    assert sample["state"].tolist() == [[4, 5], [6, 7]]
    assert data.sample_bytes == 16 + 32
    other = open_dataset(save(tmp_path / "e.npz", a=ids, state=state), inputs=["a", "state"])
    assert other.sample_digests != data.sample_digests


def test_a_model_input_called_y_is_no_label(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=np.arange(3), y=np.arange(3.0))
    data = open_dataset(path, inputs=["x", "y"])
    assert data.labels is None
    assert list(data)[2] == {"x": 2, "y": 2.0}


def test_inputs_that_are_missing_or_of_other_length_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", a=np.arange(3), b=np.arange(2))
    with pytest.raises(ModelError, match="no array c"):
        open_dataset(path, inputs=["a", "c"])
    with pytest.raises(ModelError, match="a holds 3 samples, b 2"):
        open_dataset(path, inputs=["a", "b"])


def test_a_file_that_changed_since_it_was_opened_is_noticed(tmp_path: Path) -> None:
    data = open_dataset(save(tmp_path / "d.npz", x=np.arange(5)))
    for changed in (np.arange(5)[::-1], np.arange(4), np.arange(6)):
        save(tmp_path / "d.npz", x=changed)
        with pytest.raises(ModelError, match="changed while they were used"):
            list(data)


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{"a": 1}], object), allow_pickle=True)
    return buffer.getvalue()


BAD = {
    "no array x": ({"z": np.zeros(3)}, "no array x"),
    "no samples": ({"x": np.zeros((0, 3))}, "no samples"),
    "empty samples": ({"x": np.zeros((3, 0))}, "no samples"),
    "a single number": ({"x": np.array(3.0)}, "no samples"),
    "text": ({"x": np.array(["a", "b"])}, "not numeric"),
    "NaN": ({"x": np.array([[0.0], [np.nan]])}, "Sample 1"),
    "infinity": ({"x": np.array([[np.inf]])}, "Sample 0"),
    "fewer labels": ({"x": np.zeros((3, 2)), "y": np.zeros(2, int)}, "3 samples, y 2 labels"),
    "NaN labels": ({"x": np.zeros((3, 2)), "y": np.full(3, np.nan)}, "labels .* hold NaN"),
    "complex labels": ({"x": np.zeros((3, 2)), "y": np.zeros(3, complex)}, "complex128"),
    "one label": ({"x": np.zeros((3, 2)), "y": np.array(3)}, "3 samples, y 1 labels"),
    "huge labels": (
        {"x": np.zeros((1, 2)), "y": np.array([1 << 63], np.uint64)},
        "labels .* out of range",
    ),
    "count of no boxes": (
        {"x": np.zeros((2, 2)), "y": np.zeros((2, 3, 4)), "count": np.array([4, 0])},
        "integers of 0 to 3",
    ),
    "float count": (
        {"x": np.zeros((2, 2)), "y": np.zeros((2, 3, 4)), "count": np.zeros(2)},
        "array count has the type float64",
    ),
    "classes of another shape": (
        {"x": np.zeros((2, 2)), "y": np.zeros((2, 3, 4)), "classes": np.zeros(2, int)},
        r"in the shape \[2, 3\]",
    ),
    "fortran order": ({"x": np.asfortranarray(np.zeros((3, 2)))}, "Fortran order"),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_cannot_be_used_are_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    arrays, words = BAD[case]
    with pytest.raises(ModelError) as caught:
        open_dataset(save(tmp_path / "d.npz", **arrays))
    assert re.search(words, str(caught.value))
    assert exit_code_of(caught.value) is ExitCode.BAD_MODEL_OR_DATA


def test_python_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(pickled())
    with pytest.raises(ModelError, match="holds Python objects"):
        open_dataset(tmp_path / "d.npz")


def test_a_missing_file_a_folder_and_a_text_file_are_each_told_apart(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty").mkdir()
    for path, words in [
        ("none.npz", "No data file"),
        ("empty", "The folder holds no image"),
        ("text.npz", "not a whole"),
    ]:
        with pytest.raises(ModelError) as caught:
            open_dataset(tmp_path / path)
        assert words in str(caught.value)


def test_a_header_that_promises_more_than_there_is_costs_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2, 1 << 40)}
    )
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(100))
    with pytest.raises(ModelError, match="ends before its last sample"):
        open_dataset(tmp_path / "d.npz")


def whole_file() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.arange(40.0).reshape(5, 8), y=np.arange(5))
    return buffer.getvalue()


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_file_is_an_error_with_a_sentence_or_the_same_data(
    tmp_path: Path, data: st.DataObject
) -> None:
    damaged = bytearray(whole_file())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged)
    try:
        opened: Dataset = open_dataset(path)
    except EdgemlError as error:
        said = error.what
    else:
        said = "." * (len(list(opened)) == len(opened))
    assert said.endswith(".")
