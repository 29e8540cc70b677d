"""Samples from a folder of images, decoded as a pipeline gets them: uint8 BGR, H x W x 3.

Class numbers come from sub-folders. Those that bear the names of the pipeline's labels are these
classes; names that are all numbers are class numbers, from 0; other names are numbered in their
sorted order, where there are as many as the pipeline has labels, or it has none. Or labels come
from a `labels.csv` with the columns `file` and `label`. Images right in the folder, without a
`labels.csv`, have no labels and can calibrate.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from converters.sources.labels import Labels, stacked
from edgeml.errors import ModelError

_TYPES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
LABEL_FILE = "labels.csv"


class ImageSource:
    """Images below `folder`; which they are and their labels are decided when it is made.

    `classes` are the names of the model's classes, where a pipeline says them.
    """

    def __init__(self, folder: Path, classes: Sequence[str] = ()) -> None:
        self._folder = folder
        self._listed = _listed(folder, classes)
        if not self._listed:
            raise ModelError(
                f"There are no samples in {folder}.",
                why=f"The folder holds no image ({', '.join(sorted(_TYPES))}).",
                fix="Give a folder of images, one sub-folder a class, or an .npz file.",
            )

    def samples(self) -> Iterator[tuple[Any, Any]]:
        """One pass, an image at a time."""
        for path, label in self._listed:
            yield _image(path), label

    def labels(self, seen: list[Any]) -> Labels | None:
        """Class numbers, or the texts of `labels.csv` where they are not all numbers."""
        return stacked(self._folder, seen)


def _listed(folder: Path, names: Sequence[str]) -> list[tuple[Path, Any]]:
    if (folder / LABEL_FILE).is_file():
        return _from_csv(folder)
    here = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    classes = [path for path in here if path.is_dir()]
    loose = [path for path in here if _is_image(path)]
    numbers = _numbers(folder, [path.name for path in classes], names)
    found = [
        (path, numbers[directory.name])
        for directory in classes
        for path in sorted(directory.rglob("*"))
        if _is_image(path)
    ]
    if loose and found:
        raise ModelError(
            f"The samples in {folder} cannot be used.",
            why=f"It holds images ({loose[0].name}) beside sub-folders of images "
            f"({classes[0].name}), and so some would have a class and others none.",
            fix=f"Move them into sub-folders, or write a {LABEL_FILE}.",
        )
    return found or [(path, None) for path in loose]


def _numbers(folder: Path, found: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """The class number of each sub-folder.

    Raises:
        ModelError: which class a sub-folder is would be a guess.
    """
    strangers = [name for name in found if name not in names]
    if not strangers:
        return {name: names.index(name) for name in found}
    if len(strangers) == len(found):
        if all(map(_is_class_number, found)):
            strangers = [name for name in found if names and int(name) >= len(names)]
            if not strangers:
                return {name: int(name) for name in found}
            why = f"Its sub-folder {strangers[0]} is class {int(strangers[0])}, counted from 0"
        elif len(found) == len(names) or not names:
            return {name: number for number, name in enumerate(found)}
        else:
            why = f"It has {len(found)} sub-folders, none with the name of a label"
        why += f"; the pipeline has {len(names)} labels."
    else:
        why = (
            f"Some of its sub-folders bear names of the pipeline's labels, {strangers[0]} does not."
        )
    raise ModelError(
        f"The samples in {folder} cannot be used.",
        why=why,
        fix=f"Name each like one of the labels: {', '.join(names)}.",
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _TYPES and not path.name.startswith(".") and path.is_file()


def _from_csv(folder: Path) -> list[tuple[Path, Any]]:
    where = folder / LABEL_FILE
    try:
        with where.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"The labels in {where} cannot be read.", why=f"{error}.") from None
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise ModelError(
            f"The labels in {where} cannot be used.",
            why="Its first line must name the columns file and label, and lines must follow.",
        )
    for number, row in enumerate(rows, start=2):
        if not row["file"] or row["label"] is None:
            raise ModelError(
                f"The labels in {where} cannot be used.",
                why=f"Line {number} lacks a file or a label.",
            )
    texts = [row["label"].strip() for row in rows]
    labels: list[Any] = [int(t) for t in texts] if all(map(_is_integer, texts)) else list(texts)
    return [(folder / row["file"], label) for row, label in zip(rows, labels, strict=True)]


def _is_class_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()


def _image(path: Path) -> np.ndarray:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ModelError(
            f"The image {path} cannot be read.", why=f"{error.strerror or error}."
        ) from None
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise ModelError(f"The image {path} cannot be read.", why=f"{error.err}.") from None
    if image is None:
        raise ModelError(
            f"The image {path} cannot be read.", why="Its bytes are no image that OpenCV knows."
        )
    return np.asarray(image)
