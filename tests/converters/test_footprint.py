"""Memory and start-up time are those of the artifact, not of who asks."""

from pathlib import Path

import numpy as np
import pytest

from converters.footprint import measure_footprint
from edgeml.errors import ModelError

FEED = [np.zeros((1, 1, 12, 12), np.float32)]


def test_the_child_says_its_own_peak_not_that_of_its_parent(convnet: Path) -> None:
    ballast = np.ones(60 << 20)  # half a gigabyte in this process
    footprint = measure_footprint("onnxruntime", convnet, FEED)
    assert ballast.nbytes > footprint.memory_bytes > 10 << 20
    assert footprint.load_ms > 0


def test_an_artifact_that_cannot_run_is_an_error_with_the_childs_last_words(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_text("hello")
    with pytest.raises(ModelError, match=r"in a process of its own.*bad\.onnx"):
        measure_footprint("onnxruntime", tmp_path / "bad.onnx", FEED)
