"""Numbers as inclusive ranges: what an acknowledgement and a gap say."""

from collections.abc import Iterable


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Inclusive ranges, sorted, with those that touch made one.

    >>> joined([(7, 9), (1, 3), (4, 5), (2, 3)])
    [(1, 5), (7, 9)]
    """
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def runs(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as inclusive ranges.

    >>> runs([1, 2, 3, 7, 9, 10])
    [(1, 3), (7, 7), (9, 10)]
    """
    return joined((seq, seq) for seq in seqs)
