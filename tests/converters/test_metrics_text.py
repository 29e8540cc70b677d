"""Texts are decoded from CTC outputs in each of their layouts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.dataset import open_dataset
from converters.metrics import find_metric
from converters.metrics.text import Alphabet, decode, edit_distance
from edgeml.errors import ModelError, UserError

LABELS = Alphabet(("", "a", "b", " "))


def steps(classes: list[int], count: int = 4) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[classes][None]


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([1, 1, 2, 2], "ab"),
        ([1, 0, 1], "aa"),
        ([0, 0, 0], ""),
        ([3, 1, 3, 3, 2, 3], "a b"),
    ],
)
def test_repeats_are_merged_and_blanks_dropped(classes: list[int], text: str) -> None:
    assert decode([steps(classes)], LABELS) == text


def test_steps_and_classes_are_told_apart_in_every_layout() -> None:
    scores = steps([1, 0, 1, 2, 2, 0])
    for output in (scores, scores.transpose(1, 0, 2), scores.transpose(0, 2, 1)):
        assert decode([output], LABELS) == "aab"


def test_the_blank_may_be_left_out_of_the_labels_or_be_the_last_class() -> None:
    assert decode([steps([1, 0, 2])], Alphabet(("a", "b", " "))) == "ab"
    assert decode([steps([0, 3, 1])], Alphabet(("a", "b", " "), blank_last=True)) == "ab"
    assert decode([steps([0, 3, 0])], Alphabet(("a", "b", " ", "-"), blank_last=True)) == "aa"


def test_class_numbers_are_spelt_as_they_are() -> None:
    assert decode([np.array([[1, 1, 2]])], LABELS) == "aab"
    with pytest.raises(ModelError, match="answers the class 4"):
        decode([np.array([[1, 4]])], LABELS)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (steps([1, 0], 7), "4 of them; the model has 7 classes"),
        (np.zeros((1, 4), np.float32), "no text recogniser"),
        (np.zeros((1, 2, 3, 4), np.float32), "1 x 2 x 3 x 4"),
        (np.full((1, 3, 4), np.nan, np.float32), "NaN"),
    ],
)
def test_outputs_that_spell_nothing_are_refused(output: np.ndarray, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        decode([output], LABELS)


@given(st.text("abc", max_size=8), st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_the_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


@pytest.fixture
def labels_file(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("\na\nb\n ", encoding="utf-8")
    return tmp_path / "labels.txt"


def test_exact_and_character_accuracy_count_texts_and_characters(labels_file: Path) -> None:
    exact = find_metric(f"exact:{labels_file}")
    characters = find_metric(f"char_accuracy:{labels_file}")
    said = [steps([1, 2]), steps([1, 0, 1])]
    assert [exact.outcome([o], y, []) for o, y in zip(said, ["ab ", "ab"], strict=True)] == [
        True,
        False,
    ]
    made = [characters.outcome([o], y, []) for o, y in zip(said, ["ab", "abbb"], strict=True)]
    assert characters.score(made) == pytest.approx(1 - 3 / 6)
    assert characters.score([*made, characters.missed("ab")]) == pytest.approx(1 - 5 / 8)
    assert exact.missed("ab") is False


def test_a_pipelines_labels_serve_where_no_file_is_named() -> None:
    assert find_metric("exact", labels=["a", "b", " "]).outcome([steps([1, 2])], "ab", []) is True
    assert find_metric("exact:blank=last", labels=["b", "a"]).outcome(
        [steps([1, 2, 0], 3)], "ab", []
    )
    with pytest.raises(UserError, match=r"exact:labels\.txt"):
        find_metric("exact")


def test_a_labels_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No labels file"):
        find_metric(f"exact:{tmp_path / 'none.txt'}")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="no UTF-8"):
        find_metric(f"exact:{tmp_path / 'bytes.txt'}")


def test_class_numbers_are_no_texts(tmp_path: Path, labels_file: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3)), y=np.array([0, 1]))
    with pytest.raises(ModelError, match="class numbers; it takes one text"):
        find_metric(f"exact:{labels_file}").check(open_dataset(tmp_path / "d.npz"), [steps([1])])


def test_a_metric_is_told_apart_by_what_its_labels_file_holds(labels_file: Path) -> None:
    before = find_metric(f"exact:{labels_file}").identity
    labels_file.write_text("\nb\na\n ", encoding="utf-8")
    assert find_metric(f"exact:{labels_file}").identity != before
