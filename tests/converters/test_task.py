"""Samples fit the model or the pipeline, or are refused with what would fit."""

from pathlib import Path

import numpy as np
import pytest

from converters.dataset import Dataset, open_dataset
from converters.model import FloatModel, load_model
from converters.task import DirectTask, PipelineTask, load_pipeline
from edgeml.errors import ModelError
from hardware.runtimes.interface import TensorSpec


def data(tmp_path: Path, x: np.ndarray) -> Dataset:
    np.savez(tmp_path / "d.npz", x=x)
    return open_dataset(tmp_path / "d.npz")


def model_of(*inputs: tuple[str, tuple[int | str, ...], str]) -> FloatModel:
    return FloatModel(
        path=Path("model.onnx"),
        data=b"",
        digest="",
        opset=17,
        inputs=tuple(TensorSpec(name=n, shape=s, dtype=d) for n, s, d in inputs),
        outputs=(),
        operators={},
        parameters=0,
    )


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


@pytest.mark.parametrize(
    ("spec", "sample", "fed"),
    [
        (("N",), (), (1,)),
        (("N", 3), (3,), (1, 3)),
        (("N", 3), (1, 3), (1, 3)),
        ((), (), ()),
        ((2, 1, 4), (2, 1, 4), (2, 1, 4)),
        (("N", "T", 8), (5, 8), (1, 5, 8)),
        ((1, 2, 3, 4, 5), (2, 3, 4, 5), (1, 2, 3, 4, 5)),
    ],
)
def test_inputs_of_any_rank_are_fed(
    tmp_path: Path, spec: tuple[int | str, ...], sample: tuple[int, ...], fed: tuple[int, ...]
) -> None:
    task = DirectTask(model_of(("a", spec, "float32")))
    samples = data(tmp_path, np.ones((2, *sample), np.float32))
    task.check(samples)
    tensors = task.prepare(next(iter(samples)))
    assert tensors is not None
    assert tensors[0].shape == fed


def test_a_batch_axis_fixed_to_more_than_one_is_refused(tmp_path: Path) -> None:
    task = DirectTask(model_of(("a", (8, 3), "float32")))
    with pytest.raises(ModelError, match="fixed to 8"):
        task.check(data(tmp_path, np.ones((2, 3), np.float32)))


def test_batches_are_no_samples(tmp_path: Path, direct: DirectTask) -> None:
    with pytest.raises(ModelError, match=r"are batches.*8 x 1 x 12 x 12.*single samples"):
        direct.check(data(tmp_path, np.ones((2, 8, 1, 12, 12), np.float32)))
    direct.check(data(tmp_path, np.ones((2, 1, 1, 12, 12), np.float32)))


def test_integers_are_narrowed_as_long_as_their_values_fit(tmp_path: Path) -> None:
    task = DirectTask(model_of(("ids", ("N", 2), "int32")))
    task.check(data(tmp_path, np.array([[1, 2]], np.int64)))
    tensors = task.prepare(np.array([1, -2], np.int64))
    assert tensors is not None
    assert (tensors[0].dtype, tensors[0].tolist()) == (np.int32, [[1, -2]])
    with pytest.raises(ModelError, match="values from 1 to 4294967296"):
        task.prepare(np.array([1, 1 << 32]))


def test_floats_beyond_the_inputs_range_are_refused() -> None:
    task = DirectTask(model_of(("a", ("N", 2), "float16")))
    with pytest.raises(ModelError, match="beyond 65504"):
        task.prepare(np.array([1.0, 1e6], np.float32))


TWO = (("ids", ("N", "T"), "int64"), ("mask", ("N", "T"), "bool"))


def test_several_inputs_are_fed_in_the_models_order(tmp_path: Path) -> None:
    task = DirectTask(model_of(*TWO))
    np.savez(tmp_path / "d.npz", mask=np.ones((3, 4), bool), ids=np.arange(12).reshape(3, 4))
    samples = open_dataset(tmp_path / "d.npz", inputs=["ids", "mask"])
    task.check(samples)
    tensors = task.prepare(list(samples)[2])
    assert tensors is not None
    assert [t.tolist() for t in tensors] == [[[8, 9, 10, 11]], [[True] * 4]]


def test_one_array_for_several_inputs_is_refused_with_their_names(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"inputs ids, mask.*ids=…, mask=…"):
        DirectTask(model_of(*TWO)).check(data(tmp_path, np.zeros((2, 4), np.int64)))


def test_each_of_several_inputs_must_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.zeros((2, 4), int), mask=np.ones((2, 4)))
    with pytest.raises(ModelError, match="the input mask takes bool"):
        DirectTask(model_of(*TWO)).check(open_dataset(tmp_path / "d.npz", inputs=["ids", "mask"]))


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
    assert task.labels[1] == "upper right"


def test_outputs_that_the_pipelines_labels_do_not_fit_are_refused(
    convnet: Path, pipeline_file: Path, direct: DirectTask
) -> None:
    task = PipelineTask(load_pipeline(pipeline_file)[0], load_model(convnet))
    task.check_outputs([np.zeros((1, 4), np.float32)])
    with pytest.raises(ModelError, match="4 labels, the model answers 5 scores"):
        task.check_outputs([np.zeros((1, 5), np.float32)])
    direct.check_outputs([np.zeros((1, 5), np.float32)])


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
