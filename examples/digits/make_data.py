"""Writes the data that `edgeml convert` asks for: images of the region, as the camera sees them.

    python examples/digits/make_data.py --out data

makes `data/calibration.npz` (`x`: 256 images, uint8, 112 x 112) and `data/evaluation.npz`
(`x`: 1,500 images, `y`: their digits). No digit is in both, and none of them was trained on.
The same call makes the same bytes.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import EdgemlError, UserError, exit_code_of
from examples.digits.data import splits
from examples.digits.views import NOMINAL, views

_SEED = 7


def write(out: Path) -> tuple[Path, Path]:
    """Write both files into a folder, made if need be; return their paths.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    parts = splits()
    calibration = np.stack(list(views(parts.calibration, NOMINAL, (_SEED, 1))))
    evaluation = np.stack(list(views(parts.evaluation, NOMINAL, (_SEED, 2))))
    try:
        out.mkdir(parents=True, exist_ok=True)
        return (
            _save(out / "calibration.npz", x=calibration),
            _save(out / "evaluation.npz", x=evaluation, y=parts.evaluation.labels),
        )
    except OSError as error:
        raise UserError(f"No data can be written to {out}.", why=f"{error.strerror}.") from error


def _save(path: Path, **arrays: NDArray[np.generic]) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    given = parser.parse_args(arguments)
    try:
        written = write(given.out)
    except EdgemlError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code_of(error)
    print(*written, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
