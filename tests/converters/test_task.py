"""Samples fit the model or the pipeline, or are refused with what would fit."""

from pathlib import Path

import numpy as np
import pytest

from converters.dataset import Dataset, open_dataset
from converters.model import load_model
from converters.task import DirectTask, PipelineTask, load_pipeline
from edgeml.errors import ModelError


def data(tmp_path: Path, x: np.ndarray) -> Dataset:
    np.savez(tmp_path / "d.npz", x=x)
    return open_dataset(tmp_path / "d.npz")


@pytest.fixture
def direct(convnet: Path) -> DirectTask:
    return DirectTask(load_model(convnet))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int8", "bool"])
def test_types_that_the_input_can_hold_are_cast(
    tmp_path: Path, direct: DirectTask, dtype: str
) -> None:
    samples = data(tmp_path, np.ones((2, 1, 12, 12), dtype))
    direct.check(samples)
    tensors = direct.prepare(next(iter(samples)))
    assert tensors is not None
    assert (tensors[0].shape, tensors[0].dtype) == ((1, 1, 12, 12), np.float32)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint64"])
def test_types_that_would_lose_values_are_refused(
    tmp_path: Path, direct: DirectTask, dtype: str
) -> None:
    with pytest.raises(ModelError, match=f"They are {dtype}"):
        direct.check(data(tmp_path, np.ones((2, 1, 12, 12), dtype)))


@pytest.mark.parametrize("shape", [(2, 12, 12, 1), (2, 12, 12), (2, 1, 12, 13), (2, 144), (2,)])
def test_another_shape_is_refused_with_the_shape_that_fits(
    tmp_path: Path, direct: DirectTask, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ModelError, match="takes 1 x 12 x 12"):
        direct.check(data(tmp_path, np.ones(shape, np.float32)))


def test_region_images_go_through_the_pipeline(
    tmp_path: Path, convnet: Path, pipeline_file: Path
) -> None:
    definition, text = load_pipeline(pipeline_file)
    assert text == pipeline_file.read_bytes()
    task = PipelineTask(definition, load_model(convnet))
    samples = data(tmp_path, np.full((2, 24, 24, 3), 255, np.uint8))
    task.check(samples)
    tensors = task.prepare(next(iter(samples)))
    assert tensors is not None
    assert tensors[0].shape == (1, 1, 12, 12)
    assert tensors[0].max() == pytest.approx(1.0, abs=1e-5)
    assert task.answer([np.array([[0.0, 3.0, 1.0, 0.0]], np.float32)]) == 1


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 24, 24), np.float32),
        np.zeros((2, 24, 24, 2), np.uint8),
        np.zeros((2, 24), np.uint8),
    ],
)
def test_what_is_no_image_is_refused_by_a_pipeline(
    tmp_path: Path, convnet: Path, pipeline_file: Path, x: np.ndarray
) -> None:
    task = PipelineTask(load_pipeline(pipeline_file)[0], load_model(convnet))
    with pytest.raises(ModelError, match="no region images"):
        task.check(data(tmp_path, x))


def test_a_pipeline_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No pipeline"):
        load_pipeline(tmp_path / "none.toml")
