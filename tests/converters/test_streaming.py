"""Data are streamed: what a conversion holds of them does not grow with their number."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

SIDE = 64  # samples of 16 KiB
PASSES = """
import resource, sys
from converters.dataset import each_once, open_dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = each_once(open_dataset(sys.argv[1]))
assert sum(1 for _ in data) == len(data) == int(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def write(path: Path, samples: int) -> None:
    """Different samples that are nearly all zeros, so that the file is small."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            shape = (samples, SIDE, SIDE)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[arg-type]
            row = np.zeros((SIDE, SIDE), np.float32)
            for number in range(samples):
                row[0, 0] = number
                file.write(row.tobytes())
        with archive.open("y.npy", "w") as file:
            np.lib.format.write_array(file, np.arange(samples) % 10)


@pytest.mark.parametrize("samples", [200, 20_000])
def test_going_over_data_takes_a_few_megabytes_however_many_samples_there_are(
    samples: int, tmp_path: Path
) -> None:
    write(tmp_path / "data.npz", samples)
    done = subprocess.run(
        [sys.executable, "-c", PASSES, str(tmp_path / "data.npz"), str(samples)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 24 << 10, "KiB; 20,000 samples are 320 MiB"
