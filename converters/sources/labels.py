"""Labels of any form that data carry: class numbers, texts, boxes, or rows of numbers.

They are arrays with one row a sample, whatever the source was: `y` int64 [N] for class
numbers, text [N], boxes [N, M, 4] as x1 y1 x2 y2 with `count` [N] boxes in use and their
`classes` [N, M], or any other numeric rows, which a metric of one's own may read.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from edgeml.errors import ModelError

_BOX = 4
_BOX_ARRAY_RANK = 3
MAX_LABEL_BYTES = 1 << 28


class Boxes(msgspec.Struct, frozen=True):
    """What one image shows: `boxes` float64 [m, 4] as x1 y1 x2 y2, `classes` int64 [m].

    The unit is that of the model's own boxes: pixels of the model's input, as a rule.
    """

    boxes: np.ndarray
    classes: np.ndarray


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """One row a sample: `y` [N, ...], and for boxes `count` [N] and `classes` [N, M]."""

    y: np.ndarray
    count: np.ndarray | None = None
    classes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def are_class_numbers(self) -> bool:
        """Whether each label is one integer."""
        return self.y.ndim == 1 and self.y.dtype.kind == "i"

    @property
    def are_texts(self) -> bool:
        """Whether each label is a text."""
        return self.y.ndim == 1 and self.y.dtype.kind == "U"

    @property
    def are_boxes(self) -> bool:
        """Whether each label is a list of boxes."""
        return self.y.ndim == _BOX_ARRAY_RANK and self.y.shape[2] == _BOX

    def of(self, index: int) -> Any:
        """The label of one sample: an int, a float, a text, `Boxes`, or a row [...]."""
        row = self.y[index]
        if self.y.ndim == 1:
            return row.item()
        if not self.are_boxes:
            return row
        used = int(self.count[index]) if self.count is not None else len(row)
        classes = np.zeros(used, np.int64) if self.classes is None else self.classes[index, :used]
        return Boxes(row[:used].astype(np.float64), classes.astype(np.int64))

    def at(self, indices: Sequence[int]) -> "Labels":
        """The labels of these samples."""
        rows = list(indices)
        return Labels(
            y=self.y[rows],
            count=None if self.count is None else self.count[rows],
            classes=None if self.classes is None else self.classes[rows],
        )

    def same(self, one: int, other: int) -> bool:
        """Whether two samples have the same label."""
        arrays = (self.y, self.count, self.classes)
        return all(np.array_equal(a[one], a[other]) for a in arrays if a is not None)

    def add_to(self, digest: "hashlib._Hash") -> None:
        """Add all labels to a digest, the same for the same labels however wide their texts."""
        if self.are_texts:
            for text in self.y.tolist():
                data = text.encode()
                digest.update(b"t%d:" % len(data) + data)
            return
        head = b"y" if self.are_class_numbers else f"y{self.y.dtype.str}{self.y.shape}".encode()
        digest.update(head + self.y.tobytes())
        for name, array in (("count", self.count), ("classes", self.classes)):
            if array is not None:
                digest.update(f"{name}{array.shape}".encode() + array.tobytes())

    def __str__(self) -> str:
        if self.are_class_numbers:
            return "class numbers"
        if self.are_texts:
            return "texts"
        if self.are_boxes:
            return "boxes"
        return f"{self.y.dtype} of the shape {list(self.y.shape[1:])}"


def checked(where: object, samples: int, arrays: dict[str, np.ndarray]) -> Labels | None:
    """Labels from the arrays `y`, `count` and `classes` of a source.

    Args:
        where: the source's name, for errors.
        samples: how many samples there are.
        arrays: those of the three that are there.

    Raises:
        ModelError: an array does not fit the samples or the others.
    """
    if "y" not in arrays:
        for name in arrays:
            raise ModelError(
                f"The labels in {where} cannot be used.",
                why=f"There is an array {name} without an array y of boxes.",
            )
        return None
    y = _numbers_or_texts(where, arrays["y"])
    if y.ndim == 0 or len(y) != samples:
        raise ModelError(
            f"Samples and labels in {where} do not match.",
            why=f"x holds {samples} samples, y {len(y) if y.ndim else 1} labels.",
        )
    labels = Labels(y=y)
    if not labels.are_boxes:
        return labels
    most = y.shape[1]
    return Labels(
        y=y,
        count=_integers(where, "count", arrays.get("count"), (samples,), most),
        classes=_integers(where, "classes", arrays.get("classes"), (samples, most), None),
    )


def stacked(where: object, labels: Sequence[Any]) -> Labels | None:
    """Labels from one Python object a sample: int, str, array, `Boxes` or (boxes, classes).

    Raises:
        ModelError: some samples have a label and others not, or their forms differ.
    """
    if all(label is None for label in labels):
        return None
    missing = next((i for i, label in enumerate(labels) if label is None), None)
    if missing is not None:
        raise ModelError(
            f"Sample {missing} in {where} has no label.", why="Other samples there have one."
        )
    boxes = [_as_boxes(label) for label in labels]
    if all(found is not None for found in boxes):
        return _padded(where, [found for found in boxes if found is not None])
    try:
        y = np.array(list(labels))
    except ValueError:
        y = np.array(None)
    if y.dtype.kind not in "uifbU" or (y.dtype.kind == "U" and not _all_texts(labels)):
        raise ModelError(
            f"The labels in {where} cannot be used.",
            why="They are not all class numbers, all texts, all boxes [m, 4], "
            "or all arrays of one shape.",
        )
    return checked(where, len(labels), {"y": y})


def _all_texts(labels: Sequence[Any]) -> bool:
    return all(isinstance(label, str) for label in labels)


def _as_boxes(label: Any) -> Boxes | None:
    if isinstance(label, Boxes):
        return label
    if isinstance(label, tuple) and len(label) == 2:  # noqa: PLR2004
        boxes, classes = np.asarray(label[0]), np.asarray(label[1])
        if boxes.size == 0:
            boxes = boxes.reshape(0, _BOX)
        if _is_box_array(boxes) and classes.shape == (len(boxes),):
            return Boxes(boxes, classes.astype(np.int64))
        return None
    if isinstance(label, np.ndarray) and _is_box_array(label):
        return Boxes(label, np.zeros(len(label), np.int64))
    return None


def _is_box_array(array: np.ndarray) -> bool:
    return array.ndim == 2 and array.shape[1] == _BOX and array.dtype.kind in "uif"  # noqa: PLR2004


def _padded(where: object, labels: Sequence[Boxes]) -> Labels:
    most = max(1, *(len(label.boxes) for label in labels))
    y = np.zeros((len(labels), most, _BOX), np.float64)
    classes = np.zeros((len(labels), most), np.int64)
    for row, kinds, label in zip(y, classes, labels, strict=True):
        row[: len(label.boxes)] = label.boxes
        kinds[: len(label.boxes)] = label.classes
    count = np.array([len(label.boxes) for label in labels])
    return Labels(
        y=_numbers_or_texts(where, y),
        count=count,
        classes=_integers(where, "classes", classes, classes.shape, None),
    )


def _numbers_or_texts(where: object, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "uifbU":
        raise ModelError(
            f"The labels in {where} cannot be used.",
            why=f"The array y has the type {y.dtype}; it may hold numbers or texts.",
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ModelError(f"The labels in {where} hold NaN or infinity.")
    if y.dtype.kind == "u" and y.max(initial=0) > np.iinfo(np.int64).max:
        raise ModelError(f"The labels in {where} are out of range.")
    return y.astype(np.int64) if y.dtype.kind in "uib" and y.ndim == 1 else y


def _integers(
    where: object, name: str, array: np.ndarray | None, shape: tuple[int, ...], most: int | None
) -> np.ndarray | None:
    """`array` as int64 where it has this shape and holds 0 .. most."""
    if array is None:
        return None
    fits = array.dtype.kind in "ui" and array.shape == shape
    if not fits or array.min(initial=0) < 0 or (most is not None and array.max(initial=0) > most):
        limit = f"0 to {most}" if most is not None else "0 and above"
        raise ModelError(
            f"The labels in {where} cannot be used.",
            why=f"The array {name} has the type {array.dtype} and the shape {list(array.shape)}; "
            f"it must hold integers of {limit} in the shape {list(shape)}.",
        )
    return array.astype(np.int64)
