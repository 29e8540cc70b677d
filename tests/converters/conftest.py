"""Small real models and data for the converter's tests, made with onnx alone."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SIZE = 12
CLASSES = 4


def write_model(
    path: Path, nodes: list, constants: dict[str, np.ndarray], shape: tuple, opset: int = 17
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def write_convnet(path: Path, *, channels: int = 16, opset: int = 17) -> Path:
    """Tell which quarter of an image is bright: conv, batch norm, relu, pooling, gemm."""
    rng = np.random.default_rng(7)
    half = SIZE // 2
    weight = np.abs(rng.normal(0.3, 0.1, (channels, 1, 3, 3)))
    dense = np.zeros((channels * 4, CLASSES))
    for quarter in range(4):
        dense[quarter::4, quarter] = 1 / channels
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("AveragePool", ["r"], ["p"], name="pool", kernel_shape=[half, half],
                         strides=[half, half]),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "d", "db"], ["logits"], name="dense"),
    ]  # fmt: skip
    constants = {
        "w": weight,
        "s": rng.uniform(0.5, 1.5, channels),
        "b": rng.normal(0, 0.1, channels),
        "m": rng.normal(0, 0.1, channels),
        "v": rng.uniform(0.5, 1.5, channels),
        "d": dense,
        "db": np.zeros(CLASSES),
    }
    return write_model(path, nodes, constants, (1, SIZE, SIZE), opset)


def write_fragile(path: Path) -> Path:
    """Tell classes from small inputs that stand beside a huge one: 8 bits cannot hold both."""
    weight = np.vstack([np.zeros((1, CLASSES)), np.eye(CLASSES)])
    nodes = [helper.make_node("Gemm", ["image", "w"], ["logits"], name="dense")]
    return write_model(path, nodes, {"w": weight}, (CLASSES + 1,))


def quarters(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with one bright quarter, and which one it is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.normal(0, 0.1, (count, 1, SIZE, SIZE)).astype(np.float32)
    half = SIZE // 2
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 1
    return images, labels


def beside_a_giant(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose first number is huge and whose others hold the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    rows = rng.normal(0, 0.05, (count, CLASSES + 1)).astype(np.float32)
    rows[:, 0] = rng.uniform(-5000, 5000, count)
    rows[np.arange(count), labels + 1] += 1
    return rows, labels


def save_data(
    folder: Path,
    make: Callable[[int, int], tuple[np.ndarray, np.ndarray]],
    *,
    evaluation: int = 400,
    calibration: int = 32,
) -> tuple[Path, Path]:
    x, _ = make(calibration, 1)
    np.savez(folder / "calibration.npz", x=x)
    x, y = make(evaluation, 2)
    np.savez(folder / "evaluation.npz", x=x, y=y)
    return folder / "calibration.npz", folder / "evaluation.npz"


@pytest.fixture
def convnet(tmp_path: Path) -> Path:
    return write_convnet(tmp_path / "convnet.onnx")


@pytest.fixture
def fragile(tmp_path: Path) -> Path:
    return write_fragile(tmp_path / "fragile.onnx")


@pytest.fixture
def quarters_data(tmp_path: Path) -> tuple[Path, Path]:
    return save_data(tmp_path, quarters)


@pytest.fixture
def fragile_data(tmp_path: Path) -> tuple[Path, Path]:
    return save_data(tmp_path, beside_a_giant)


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real models, from EDGEML_MODELS or beside the repository."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "models"
    folder = Path(os.environ.get("EDGEML_MODELS", beside))
    if not folder.is_dir():
        pytest.skip("the folder of real models is not here; name it in EDGEML_MODELS")
    return folder


@pytest.fixture(name="write_convnet")
def write_convnet_fixture() -> Callable[..., Path]:
    return write_convnet


PIPELINE = """
version = 1
task = "classification"
labels = ["upper left", "upper right", "lower left", "lower right"]
[[pre]]
op = "colour"
to = "gray"
[[pre]]
op = "resize"
width = 12
height = 12
[[pre]]
op = "scale"
factor = 0.00392156862745098
[[pre]]
op = "layout"
to = "NCHW"
[[post]]
op = "softmax"
[[post]]
op = "threshold"
value = 0.6
[site]
allow = ["threshold"]
"""


@pytest.fixture
def pipeline_file(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.toml"
    path.write_text(PIPELINE)
    return path


@pytest.fixture
def make_quarters(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    return lambda **sizes: save_data(tmp_path, quarters, **sizes)


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The quarters as a camera would show them: uint8, twice as large."""
    tensors, labels = quarters(count, seed)
    scaled = np.clip(tensors[:, 0] * 120 + 60, 0, 255).astype(np.uint8)
    return scaled.repeat(2, axis=1).repeat(2, axis=2), labels


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    return lambda **sizes: save_data(tmp_path, images, **sizes)
