"""Calibration: ranges from streams, right histograms, and a report that says when to doubt."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.methods import NotQuantizableError, Prepared, Range, observe, prepare, report_on
from converters.methods.histograms import (
    BINS,
    entropy_range,
    percentile_range,
    share_outside,
)
from converters.methods.settling import Settling
from edgeml.errors import ModelError

IMAGES = np.random.default_rng(5).normal(0, 1, (40, 1, 12, 12)).astype(np.float32)


def feeds(images: np.ndarray = IMAGES) -> Callable[[], Iterator[list[np.ndarray]]]:
    return lambda: ([image[None]] for image in images)


@pytest.fixture
def prepared(convnet: Path) -> Prepared:
    return prepare(convnet.read_bytes())


def histogram(values: np.ndarray) -> tuple[np.ndarray, Range]:
    seen = Range(float(values.min()), float(values.max()))
    return np.histogram(values, BINS, (seen.low, seen.high))[0], seen


def test_histograms_count_every_value_of_every_sample(prepared: Prepared) -> None:
    counts = observe(prepared, feeds()).histograms()
    assert counts["image"].sum() == IMAGES.size
    assert counts["logits"].sum() == len(IMAGES) * 4
    exact = np.histogram(IMAGES, BINS, (IMAGES.min(), IMAGES.max()))[0]
    assert np.abs(counts["image"] - exact).sum() < 0.02 * IMAGES.size


def test_a_second_pass_is_made_only_for_ranges_that_need_it(prepared: Prepared) -> None:
    passes = []

    def counted() -> Iterator[list[np.ndarray]]:
        passes.append(1)
        return feeds()()

    statistics = observe(prepared, counted)
    statistics.ranges("minmax")
    assert len(passes) == 1
    statistics.ranges("percentile", 99.9)
    taken = len(passes)
    statistics.ranges("percentile", 99)
    statistics.ranges("entropy")
    assert len(passes) == taken


def test_of_large_tensors_an_even_selection_is_counted(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.methods.calibrate._COUNTED", 50)
    statistics = observe(prepared, feeds())
    assert statistics.histograms()["image"].sum() == len(IMAGES) * 48
    high = statistics.ranges("percentile", 99)["image"].high
    assert high == pytest.approx(np.quantile(IMAGES, 0.995), abs=0.2)


def test_samples_that_differ_in_the_second_pass_count_at_the_ends(prepared: Prepared) -> None:
    passes = iter((1, 3, 3))

    def unsteady() -> Iterator[list[np.ndarray]]:
        return feeds(next(passes) * IMAGES)()

    counts = observe(prepared, unsteady).histograms()["image"]
    assert counts.sum() == IMAGES.size
    assert min(counts[0], counts[-1]) > 10


def test_percentile_and_entropy_ranges_lie_within_minmax_and_differ(prepared: Prepared) -> None:
    images = IMAGES.copy()
    images[3, 0, 0, 0] = 60  # an outlier
    statistics = observe(prepared, feeds(images))
    assert statistics.ranges()["image"].high == 60
    assert statistics.ranges("percentile", 99.9)["image"].high < 5
    assert statistics.ranges("entropy")["image"].high < 20
    for calibration in ("percentile", "entropy"):
        for name, kept in statistics.ranges(calibration).items():
            seen = statistics.seen[name]
            assert seen.low <= kept.low <= kept.high <= seen.high


def test_a_calibration_that_is_not_known_is_refused_by_name(prepared: Prepared) -> None:
    with pytest.raises(NotQuantizableError, match="'mean'"):
        observe(prepared, feeds()).ranges("mean")


@given(
    st.integers(2, 2000), st.floats(51, 100), st.floats(-3, 3), st.sampled_from(["normal", "gamma"])
)
def test_a_percentile_range_keeps_at_least_its_share(
    size: int, percentile: float, shift: float, shape: str
) -> None:
    rng = np.random.default_rng(size)
    values = (rng.normal(0, 1, size) if shape == "normal" else rng.gamma(1, 1, size)) + shift
    counts, seen = histogram(values)
    kept = percentile_range(counts, seen, percentile)
    assert share_outside(counts, seen, kept) <= 1 - percentile / 100 + 1e-9


def test_the_whole_percentile_is_the_whole_range() -> None:
    counts, seen = histogram(np.random.default_rng(0).normal(0, 1, 1000))
    assert percentile_range(counts, seen, 100) == seen


def test_entropy_cuts_outliers_and_leaves_an_even_spread_whole() -> None:
    rng = np.random.default_rng(0)
    even = rng.uniform(0, 1, 100_000)
    counts, seen = histogram(even)
    assert entropy_range(counts, seen).high > 0.95
    counts, seen = histogram(np.append(rng.normal(0, 1, 100_000), 40.0))
    assert entropy_range(counts, seen).high < 10


def test_entropy_is_not_deceived_by_the_zeros_behind_a_relu() -> None:
    rng = np.random.default_rng(0)
    active = rng.uniform(0, 1, 10_000)
    counts, seen = histogram(np.concatenate([np.zeros(90_000), active]))
    assert entropy_range(counts, seen).high > 0.9


def test_a_tensor_without_spread_or_values_keeps_its_range() -> None:
    same = np.zeros(BINS, np.int64)
    same[0] = 7
    assert entropy_range(np.zeros(BINS), Range(0, 1)) == Range(0, 1)
    assert percentile_range(np.zeros(BINS), Range(0, 1), 99) == Range(0, 1)
    assert percentile_range(same, Range(2, 2), 99) == Range(2, 2)


def test_no_samples_are_refused(prepared: Prepared) -> None:
    with pytest.raises(ModelError, match="nothing to calibrate with"):
        observe(prepared, list)


def test_the_report_counts_repeated_samples_and_classes_without_one(prepared: Prepared) -> None:
    images = np.concatenate([IMAGES[:20], IMAGES[:4]])
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    report = report_on(
        prepared,
        observe(prepared, feeds(images)),
        digests=digests,
        labels=[0] * 20 + [2] * 4,
        classes=4,
    )
    assert (report.samples, report.duplicates, report.classes) == (24, 4, {0: 20, 2: 4})
    assert "4 of 24 samples repeat another one." in report.warnings
    assert "2 of 4 classes have no sample." in report.warnings
    assert report.inputs[0].low == images.min()


def test_the_report_says_after_how_many_samples_ranges_had_settled(prepared: Prepared) -> None:
    report = report_on(prepared, observe(prepared, feeds(IMAGES)))
    assert (report.converged, report.unsettled) == (True, ())
    assert 1 <= report.converged_after <= len(IMAGES) // 2
    assert not any("settled" in warning for warning in report.warnings)


def test_the_report_warns_where_more_samples_would_give_other_ranges(prepared: Prepared) -> None:
    spread = np.random.default_rng(5).lognormal(0, 2, len(IMAGES)).astype(np.float32)
    report = report_on(prepared, observe(prepared, feeds(IMAGES * spread.reshape(-1, 1, 1, 1))))
    assert not report.converged
    assert report.converged_after == len(IMAGES)
    assert "image" in report.unsettled
    [warning] = [w for w in report.warnings if "have not settled" in w]
    assert warning.endswith("Calibrate on more samples.")


def settled_after(scales: np.ndarray) -> int:
    """After how many samples the range of one tensor with these extremes had settled."""
    settling = Settling(1)
    for scale in scales:
        settling.add(np.array([[-scale], [scale]], np.float32))
    assert settling.high[0] == np.float32(scales.max())
    return int(settling.after()[0])


def test_one_wide_sample_among_many_unsettles_no_range() -> None:
    scales = np.random.default_rng(0).uniform(0.8, 1, 200)
    before = settled_after(scales)
    scales[-1] = 5
    assert settled_after(scales) == before < 8


def test_samples_in_the_order_of_their_size_settle_like_any_others() -> None:
    scales = np.random.default_rng(0).uniform(0.2, 1, 400)
    assert settled_after(np.sort(scales)) <= 64
    assert settled_after(np.sort(scales)[::-1]) <= 64


def test_however_many_samples_there_are_few_of_them_are_kept() -> None:
    settling = Settling(3)
    row = np.ones((2, 3), np.float32)
    for _ in range(5000):
        settling.add(row)
    assert settling.samples == 5000
    assert len(settling._kept) <= 512
    assert settling.after().tolist() == [1, 1, 1]


def test_a_single_sample_settles_nothing() -> None:
    assert settled_after(np.ones(1)) == 1  # all of them
    assert settled_after(np.ones(2)) == 1


def test_the_report_names_the_tensor_that_saturates_most(prepared: Prepared) -> None:
    statistics = observe(prepared, feeds())
    assert report_on(prepared, statistics).saturated == ()
    report = report_on(prepared, statistics, calibration="percentile", percentile=95)
    assert report.saturated[0].share == pytest.approx(0.05, abs=0.01)
    assert any(report.saturated[0].tensor in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("low", "high", "warns"),
    [(0, 1, False), (0, 255, True), (-128, 0, True), (0, 3, False), (0, 0.1, True), (0, 0, False)],
)
def test_calibration_of_another_scale_than_evaluation_is_said(
    prepared: Prepared, low: float, high: float, warns: bool
) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (16, 1, 12, 12)).astype(np.float32)
    images[0, 0, 0, :2] = 0, 1
    report = report_on(
        prepared, observe(prepared, feeds(images)), evaluated={"image": Range(low, high)}
    )
    said = f"The input image is from 0 to 1 here and from {low:g} to {high:g} in evaluation samples"
    assert any(warning.startswith(said) for warning in report.warnings) == warns


def test_few_samples_and_a_dead_input_are_said(prepared: Prepared) -> None:
    report = report_on(prepared, observe(prepared, feeds(np.ones((3, 1, 12, 12), np.float32))))
    assert "Only 3 different samples set the ranges." in report.warnings
    assert "The input image is always 1." in report.warnings
