"""Sets of sequence numbers as sorted, inclusive, disjoint ranges: what is stored of a stream.

>>> IntervalSet(((1, 3),)).with_range(5, 6).with_range(4, 4).ranges
((1, 6),)
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

Range = tuple[int, int]


@dataclass(frozen=True)
class IntervalSet:
    """An immutable set of integers; neighbouring ranges are always merged."""

    ranges: tuple[Range, ...] = ()

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self.ranges, (number, _ABOVE))
        return index > 0 and self.ranges[index - 1][1] >= number

    def with_range(self, first: int, last: int) -> "IntervalSet":
        """The set with all numbers from `first` to `last` added."""
        if last < first:
            return self
        begin = bisect_left(self.ranges, first - 1, key=lambda r: r[1])
        end = bisect_right(self.ranges, last + 1, key=lambda r: r[0])
        if begin < end:
            first = min(first, self.ranges[begin][0])
            last = max(last, self.ranges[end - 1][1])
        return IntervalSet((*self.ranges[:begin], (first, last), *self.ranges[end:]))


_ABOVE = float("inf")


@dataclass(frozen=True)
class Mark:
    """All numbers from 1 up to `through`, and those in `above`."""

    through: int = 0
    above: IntervalSet = IntervalSet()

    def __contains__(self, number: int) -> bool:
        return 1 <= number <= self.through or number in self.above

    def with_range(self, first: int, last: int) -> "Mark":
        """The mark with `first` to `last` stored; a closed gap lifts `through`."""
        above = self.above.with_range(max(first, self.through + 1), last)
        if above.ranges and above.ranges[0][0] == self.through + 1:
            return Mark(above.ranges[0][1], IntervalSet(above.ranges[1:]))
        return Mark(self.through, above)
