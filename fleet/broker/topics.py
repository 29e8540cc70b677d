"""Topics and filters: what is valid, what matches, and the tree that finds subscribers.

>>> matches("edgeml/v1/+/up/#", "edgeml/v1/cam-1/up/state")
True
>>> matches("#", "$SYS/uptime")
False
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

MAX_LEVELS: Final = 16
"""Levels of the deepest topic; ours have five. It also bounds the tree's recursion."""

MAX_TOPIC: Final = 512
"""Characters of the longest topic or filter."""

SHARE: Final = "$share/"

T = TypeVar("T")


def valid_topic(topic: str) -> bool:
    """Return whether `topic` may be published to (4.7)."""
    return _bounded(topic) and "+" not in topic and "#" not in topic


def valid_filter(topic_filter: str) -> bool:
    """Return whether `topic_filter` may be subscribed to (4.7.1)."""
    *above, last = topic_filter.split("/")
    whole = all(level == "+" or not set("+#") & set(level) for level in above)
    return _bounded(topic_filter) and whole and (last in {"+", "#"} or not set("+#") & set(last))


def shared_group(topic_filter: str) -> tuple[str, str]:
    """The group that shares a subscription, empty for none, and the filter in it (4.8.2).

    >>> shared_group("$share/fleet/edgeml/#")
    ('fleet', 'edgeml/#')
    >>> shared_group("$share//x")
    ('', '')
    """
    if not topic_filter.startswith(SHARE):
        return "", topic_filter
    group, _, shared = topic_filter.removeprefix(SHARE).partition("/")
    return (group, shared) if group else ("", "")


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a message on `topic` is for `topic_filter`."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for want, level in zip(wanted, levels, strict=False):
        if want == "#":
            return True
        if want not in {"+", level}:
            return False
    # "a/#" is also for "a" itself (4.7.1.2).
    return len(wanted) == len(levels) or wanted[len(levels) :] == ["#"]


def _bounded(topic: str) -> bool:
    return 0 < len(topic) <= MAX_TOPIC and topic.count("/") < MAX_LEVELS


class _Node(Generic[T]):
    """The filters that have the same levels so far."""

    __slots__ = ("below", "values")

    def __init__(self) -> None:
        self.below: dict[str, _Node[T]] = {}
        self.values: dict[T, None] = {}


class TopicTree(Generic[T]):
    """Topic filters by level, each with the values that were added under it."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, topic_filter: str, value: T) -> None:
        """Add `value` under a filter; adding it twice is adding it once."""
        node = self._root
        for level in topic_filter.split("/"):
            node = node.below.setdefault(level, _Node())
        node.values[value] = None

    def remove(self, topic_filter: str, value: T) -> None:
        """Remove `value` from a filter, and the branch that is empty then."""
        levels = topic_filter.split("/")
        path = [self._root]
        for level in levels:
            node = path[-1].below.get(level)
            if node is None:
                return
            path.append(node)
        path[-1].values.pop(value, None)
        for level, above, node in zip(reversed(levels), path[-2::-1], path[:0:-1], strict=True):
            if node.below or node.values:
                break
            del above.below[level]

    def find(self, topic: str) -> Iterator[T]:
        """Yield the values of every filter that matches `topic`."""
        # A wildcard at the start does not reach topics of the broker's own kind (4.7.2).
        return _find(self._root, topic.split("/"), 0, wild=not topic.startswith("$"))

    def __bool__(self) -> bool:
        return bool(self._root.below)


def _find(node: _Node[T], levels: list[str], depth: int, *, wild: bool) -> Iterator[T]:
    if wild and (rest := node.below.get("#")):
        yield from rest.values
    if depth == len(levels):
        yield from node.values
        return
    if exact := node.below.get(levels[depth]):
        yield from _find(exact, levels, depth + 1, wild=True)
    if wild and (any_level := node.below.get("+")):
        yield from _find(any_level, levels, depth + 1, wild=True)
