"""Metrics of classifiers agree with scikit-learn, and refuse what they cannot judge."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from converters.dataset import Dataset, open_dataset
from converters.metrics import Metric, Reweighted, chance_of, find_metric
from edgeml.errors import ModelError
from tests.needs import module

ROW = np.array([[0.1, 0.5, 0.4]], np.float32)


def data(tmp_path: Path, y: object, **more: np.ndarray) -> Dataset:
    labels = {} if y is None else {"y": np.asarray(y)}
    n = len(np.asarray(y)) if y is not None else 3
    np.savez(tmp_path / "d.npz", x=np.arange(n)[:, None], **labels, **more)
    return open_dataset(tmp_path / "d.npz")


def outcomes(metric: Metric, scores: np.ndarray, labels: np.ndarray) -> list:
    made = [
        metric.outcome([row[None]], int(y), [row[None]])
        for row, y in zip(scores, labels, strict=True)
    ]
    return msgspec.msgpack.decode(msgspec.msgpack.encode(made))


def drawn(seed: int, n: int = 120, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = np.eye(classes)[labels] + rng.normal(0, 0.8, (n, classes))
    return scores.round(1).astype(np.float32), labels


@pytest.mark.parametrize(("label", "right"), [(0, False), (1, True), (2, False)])
def test_top1_is_right_where_the_label_has_the_largest_score(label: int, right: bool) -> None:
    assert find_metric("top1").outcome([ROW], label, [ROW]) is right


@pytest.mark.parametrize(("label", "right"), [(0, False), (1, True), (2, True)])
def test_topk_is_right_where_the_label_is_among_the_best(label: int, right: bool) -> None:
    assert find_metric("topk:2").outcome([ROW], label, [ROW]) is right


@given(st.lists(st.integers(0, 3), min_size=3, max_size=9), st.data())
def test_top1_agrees_with_argmax_also_for_equal_scores(
    row: list[int], drawn: st.DataObject
) -> None:
    label = drawn.draw(st.integers(0, len(row) - 1))
    scores = np.array([row], np.float32)
    assert find_metric("top1").outcome([scores], label, []) is (int(scores.argmax()) == label)


@pytest.mark.parametrize("seed", range(5))
def test_f1_and_auc_agree_with_scikit_learn(seed: int) -> None:
    metrics = module("sklearn.metrics")
    scores, labels = drawn(seed)
    f1 = find_metric("f1")
    assert f1.score(outcomes(f1, scores, labels)) == pytest.approx(
        metrics.f1_score(labels, scores.argmax(1), average="macro")
    )
    auc = find_metric("auc")
    shares = special.softmax(scores.astype(np.float64), axis=1)
    assert auc.score(outcomes(auc, shares, labels)) == pytest.approx(
        metrics.roc_auc_score(labels, shares, multi_class="ovr")
    )
    anomaly = scores[:, :1]  # rounded to tenths: many are equal
    assert auc.score(outcomes(auc, anomaly, labels == 0)) == pytest.approx(
        metrics.roc_auc_score(labels == 0, anomaly)
    )


@pytest.mark.parametrize("name", ["f1", "auc"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_weight_of_two_is_the_same_as_the_sample_twice(name: str, seed: int) -> None:
    metric = find_metric(name)
    made = outcomes(metric, *drawn(seed, n=40))
    times = np.random.default_rng(seed).integers(1, 4, len(made))
    assert isinstance(metric, Reweighted)
    repeated = [outcome for outcome, k in zip(made, times, strict=True) for _ in range(k)]
    assert metric.scores(made, times[None])[0] == pytest.approx(metric.score(repeated))


def test_two_class_scores_give_the_area_of_the_second() -> None:
    auc = find_metric("auc")
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert auc.score(outcomes(auc, scores, np.array([0, 1, 0]))) == 1.0


@pytest.mark.parametrize("classes", [2, 5])
def test_the_area_of_logits_is_that_of_their_probabilities(classes: int) -> None:
    rng = np.random.default_rng(11)
    labels = rng.integers(0, classes, 300)
    # Samples differ in a shift that all their logits share, which changes no probability.
    logits = rng.normal(0, 2, (300, classes)) + 3 * np.eye(classes)[labels]
    logits += rng.normal(0, 5, (300, 1))
    shares = special.softmax(logits, axis=1)
    metric = find_metric("auc")
    areas = [
        metric.score(outcomes(metric, rows, labels)) for rows in (logits, np.log(shares), shares)
    ]
    known = shares[:, 1] if classes == 2 else shares
    wanted = module("sklearn.metrics").roc_auc_score(labels, known, multi_class="ovr")
    assert areas == pytest.approx([wanted] * 3, abs=1e-12)


def test_an_autoencoder_is_judged_by_what_it_fails_to_give_back() -> None:
    auc = find_metric("auc:reconstruction")
    assert auc.needs_inputs
    normal = auc.outcome([np.zeros((1, 4))], 0, [np.full((1, 4), 0.1)])
    strange = auc.outcome([np.zeros((1, 4))], 1, [np.full((1, 4), 2.0)])
    assert auc.score([normal, strange]) == 1.0
    with pytest.raises(ModelError, match="1 x 4, its first input 1 x 5"):
        auc.outcome([np.zeros((1, 4))], 1, [np.zeros((1, 5))])


@pytest.mark.parametrize("name", ["top1", "topk:2", "f1", "auc"])
def test_a_sample_that_was_not_inferred_is_never_better_than_one_that_was(name: str) -> None:
    metric = find_metric(name)
    scores, labels = drawn(3, n=30)
    made = outcomes(metric, scores, labels)
    assert metric.score([metric.missed(int(labels[0])), *made[1:]]) <= metric.score(made)


@pytest.mark.parametrize("name", ["top1", "topk:2", "f1", "auc"])
def test_outputs_that_are_nan_are_refused_and_log_probabilities_are_not(name: str) -> None:
    metric = find_metric(name)
    for bad in (np.nan, np.inf):
        with pytest.raises(ModelError, match="NaN or infinity"):
            metric.outcome([np.array([[0.1, bad, 0.2]], np.float32)], 1, [])
    metric.outcome([np.array([[-np.inf, -0.1, -2]], np.float32)], 1, [])


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "no labels"),
        ([0, 3, 1], "label of sample 1 in .* out of range"),
        ([0, -1, 1], "out of range"),
        (["a", "b", "c"], "They are texts; it takes one class number"),
        ([0.5, 1, 2], "float64"),
        ([[0], [1], [2]], "one class number"),
        (np.zeros((3, 2, 4)), "They are boxes"),
    ],
)
@pytest.mark.parametrize("name", ["top1", "topk:2", "f1", "auc"])
def test_labels_that_are_no_classes_are_refused(
    tmp_path: Path, name: str, y: object, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        find_metric(name).check(data(tmp_path, y), [ROW])


@pytest.mark.parametrize("shape", [(1, 4, 3), (1, 1), (2, 3), ()])
@pytest.mark.parametrize("name", ["top1", "f1"])
def test_an_output_that_is_no_row_of_scores_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ModelError, match="no classifier"):
        find_metric(name).check(data(tmp_path, [0, 0, 0]), [np.zeros(shape)])


def test_topk_of_all_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="always 1"):
        find_metric("topk:3").check(data(tmp_path, [0, 1, 2]), [ROW])


def test_auc_needs_two_classes_and_an_anomaly_zeros_and_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="all 1"):
        find_metric("auc").check(data(tmp_path, [1, 1, 1]), [ROW])
    with pytest.raises(ModelError, match="anomaly is 1"):
        find_metric("auc").check(data(tmp_path, [0, 1, 2]), [np.zeros((1, 1))])


def test_unsigned_and_boolean_labels_are_class_numbers(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int16, bool):
        find_metric("top1").check(data(tmp_path, np.array([0, 1, 1], dtype)), [ROW])


def test_cosine_needs_no_labels_and_takes_the_output_that_differs_most(tmp_path: Path) -> None:
    metric = find_metric("cosine")
    assert metric.needs_reference
    metric.check(data(tmp_path, None), [ROW])
    a, b = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    assert metric.outcome([a, b], None, [a, b]) == pytest.approx(1.0)
    assert metric.outcome([a, a], None, [a, b]) == pytest.approx(np.sqrt(0.5))
    assert metric.outcome([-a], None, [a]) == 0.0
    assert metric.outcome([0 * a], None, [a]) == 0.0
    assert metric.outcome([0 * a], None, [0 * a]) == 1.0
    assert metric.outcome([a * 1e30], None, [a * 1e-30]) == pytest.approx(1.0)
    with pytest.raises(ModelError, match="float model's is 2, this one 1 x 3"):
        metric.outcome([ROW], None, [a])


def test_guessing_scores_what_the_number_of_classes_leaves(tmp_path: Path) -> None:
    labelled = data(tmp_path, [0, 1, 2, 3, 3])
    assert chance_of(find_metric("top1"), labelled) == 0.25
    assert chance_of(find_metric("topk:2"), labelled) == 0.5
    assert chance_of(find_metric("auc"), labelled) == 0.5
    assert chance_of(find_metric("cosine"), labelled) == 0.0


def test_an_answer_that_is_no_labelled_class_is_a_wrong_one() -> None:
    f1 = find_metric("f1")
    assert f1.score([(7, 1), (1, 1), (0, 2), (2, 2)]) == pytest.approx(2 / 3)
