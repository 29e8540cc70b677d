"""How samples of a folder with a spec become model inputs."""

import json
from pathlib import Path

import numpy as np

from benchmarks.shared_models import prepared, shared_models


def test_windows_of_frames_become_samples_of_their_own(tmp_path: Path) -> None:
    spec = {"metric": "auc", "preprocessing": [{"op": "frames", "width": 3, "count": 4}]}
    folder = tmp_path / "machine"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "float.onnx").touch()
    x = np.arange(2 * 6 * 5, dtype=np.float32).reshape(2, 6, 5)
    np.savez(folder / "calibration.npz", x=x)
    np.savez(folder / "heldout.npz", x=x, y=np.array([0, 1]))
    [model] = shared_models(tmp_path)
    assert model.metric == "auc:reconstruction"
    _, evaluation = model.write_data(tmp_path)
    with np.load(evaluation) as arrays:
        np.testing.assert_array_equal(arrays["x"][1], x[0, 1:4].reshape(-1))
        np.testing.assert_array_equal(arrays["x"][4], x[1, 0:3].reshape(-1))
        np.testing.assert_array_equal(arrays["y"], [0, 0, 0, 0, 1, 1, 1, 1])


def test_a_channels_own_factors_and_the_models_layout() -> None:
    spec = {
        "preprocessing": [
            {"op": "affine", "mul": [1.0, 2.0, 3.0], "add": 1.0},
            {"op": "transpose", "perm": [0, 3, 1, 2]},
        ]
    }
    given = prepared(spec, np.ones((1, 2, 2, 3), np.uint8))
    assert given.shape == (1, 3, 2, 2)
    assert given.dtype == np.float32
    assert given[0, :, 0, 0].tolist() == [2.0, 3.0, 4.0]


def test_folders_whose_metric_is_unknown_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "spec.json").write_text('{"task": "clips"}')
    assert shared_models(tmp_path) == []
