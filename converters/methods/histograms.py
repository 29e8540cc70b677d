"""Ranges from histograms: which values to keep, and which to let saturate.

A histogram counts the values of one tensor over all samples in bins of equal width between
the tensor's extremes. Both functions work on whole arrays; neither loops over bins.
"""

import msgspec
import numpy as np

BINS = 2048
_LEVELS = 256
_ALL = 100  # per cent
_CANDIDATES = 113  # thresholds tried, evenly from an eighth of the range to all of it


class Range(msgspec.Struct, frozen=True):
    """The least and the greatest value that is represented; others saturate."""

    low: float
    high: float


def percentile_range(counts: np.ndarray, seen: Range, percentile: float) -> Range:
    """The range that keeps `percentile` per cent of the values, cut equally at both ends.

    Args:
        counts: values in each bin, of shape (bins,).
        seen: the extremes, at the outer edges of the bins.
        percentile: above 50, up to 100, which is the whole range.
    """
    total = int(counts.sum())
    if not total or percentile >= _ALL:
        return seen
    edges = _edges(counts, seen)
    below = np.cumsum(counts)
    cut = (_ALL - percentile) / (2 * _ALL) * total
    low = int(np.searchsorted(below, cut, side="right"))
    high = int(np.searchsorted(below, total - cut, side="left"))
    return Range(float(edges[low]), float(edges[min(high, counts.size - 1) + 1]))


def entropy_range(counts: np.ndarray, seen: Range) -> Range:
    """The range whose 8-bit image loses the least information (Kullback-Leibler).

    Thresholds on the absolute value are tried, as in S. Migacz, "8-bit inference with
    TensorRT" (GTC 2017): values beyond one count as saturated at it; those within are rounded
    to 256 levels. Zero has a level of its own in every range, so that the many zeros behind a
    ReLU say nothing about where to cut: its bin counts as the next one does.

    Args:
        counts: values in each bin, of shape (bins,).
        seen: the extremes, at the outer edges of the bins.
    """
    if not counts.sum():
        return seen
    edges = _edges(counts, seen)
    centres = (edges[:-1] + edges[1:]) / 2
    counts = _without_the_zeros(counts, edges)
    extreme = max(abs(seen.low), abs(seen.high))
    best, least = seen, np.inf
    for share in np.linspace(1, 1 / 8, _CANDIDATES):
        kept = np.abs(centres) <= share * extreme
        if kept.sum() < _LEVELS:
            break
        divergence = _divergence(counts, kept)
        if divergence < least:
            least = divergence
            inside = edges[np.flatnonzero(kept)[0]], edges[np.flatnonzero(kept)[-1] + 1]
            best = Range(float(inside[0]), float(inside[1]))
    return best


def share_outside(counts: np.ndarray, seen: Range, kept: Range) -> float:
    """The share of values, 0 to 1, in bins whose centre a range does not represent."""
    edges = _edges(counts, seen)
    centres = (edges[:-1] + edges[1:]) / 2
    outside = (centres < kept.low) | (centres > kept.high)
    return float(counts[outside].sum() / max(1, counts.sum()))


def _edges(counts: np.ndarray, seen: Range) -> np.ndarray:
    return np.linspace(seen.low, seen.high, counts.size + 1)


def _without_the_zeros(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    at = int(np.searchsorted(edges, 0, side="right")) - 1
    if not 0 <= at < counts.size:
        return counts
    changed = counts.copy()
    changed[at] = counts[at + 1] if at + 1 < counts.size else counts[at - 1]
    return changed if changed.sum() else counts


def _divergence(counts: np.ndarray, kept: np.ndarray) -> float:
    first, last = np.flatnonzero(kept)[[0, -1]]
    inside = counts[first : last + 1].astype(float)
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last + 1 :].sum()
    level = np.arange(inside.size) * _LEVELS // inside.size
    filled = inside > 0
    sums = np.bincount(level, inside, minlength=_LEVELS)
    sizes = np.bincount(level, filled, minlength=_LEVELS)
    rounded = np.where(filled, (sums / np.maximum(sizes, 1))[level], 0)
    wanted, got = _smooth(clipped), _smooth(rounded)
    return float(np.sum(wanted * np.log(wanted / got)))


def _smooth(values: np.ndarray) -> np.ndarray:
    """A distribution without zeros, so that its logarithm is finite."""
    total = values.sum()
    share = values / total if total else np.full(values.size, 1 / values.size)
    share = np.maximum(share, 1e-9)
    return np.asarray(share / share.sum())
