"""Whether what a model sees has changed: its classes lately against those before. Pure.

Frames that follow one another show nearly the same, so that statistics of independent samples
would call everything a change. What is common is taken from the first half itself instead.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from cloud_sync.messages import Window
from fleet.console.views.charts import Line

# Fewer results than that say nothing of a distribution.
MIN_RESULTS = 50
_MIN_BLOCKS = 3
_Block = tuple[float, Counter[str]]


def lines(name: str, windows: Sequence[tuple[float, Window]]) -> tuple[Line, ...]:
    """How far the classes are from those of the first half, and how far they went in it.

    The distance is the total variation: the share of results that would have to be of another
    class. A block of the first half is compared with the rest of that half. Empty where there are
    too few results.

    Args:
        name: of what the windows are.
        windows: with their times, oldest first.
    """
    blocks = _blocks(windows)
    first = blocks[: len(blocks) // 2]
    if len(first) < _MIN_BLOCKS:
        return ()
    usual = sum((counts for _, counts in first), Counter[str]())
    apart = [
        (at, distance(usual - counts if index < len(first) else usual, counts))
        for index, (at, counts) in enumerate(blocks)
    ]
    most = max(value for _, value in apart[: len(first)])
    return (
        Line(name=name, points=tuple(apart)),
        Line(
            name=f"{name}, the most in the first half",
            points=((apart[0][0], most), (apart[-1][0], most)),
        ),
    )


def distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Half the sum of the differences of the shares: 0 the same, 1 nothing in common.

    >>> distance({"cat": 3, "dog": 1}, {"cat": 1, "dog": 3})
    0.5
    """
    n, m = sum(one.values()), sum(other.values())
    return sum(abs(one.get(k, 0) / n - other.get(k, 0) / m) for k in {*one, *other}) / 2


def _blocks(windows: Sequence[tuple[float, Window]]) -> list[_Block]:
    """Windows put together until there are enough results."""
    found: list[_Block] = []
    held: Counter[str] = Counter()
    for at, window in windows:
        held.update(window.classes)
        if held.total() >= MIN_RESULTS:
            found.append((at, held))
            held = Counter()
    return found
