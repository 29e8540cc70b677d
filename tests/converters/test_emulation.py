"""Artifacts run in the real onnxruntime on processors that this machine does not have."""

import os
import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.executor import LocalExecutor, open_remote
from converters.toolchains import emulation, saturation, store
from converters.toolchains.doctor import examine
from edgeml.errors import TargetError, ToolchainError

OFFSET = 10  # zero point of the data

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates from x86-64"),
    pytest.mark.usefixtures("kept_toolchains"),
]


def prepare(architecture: str) -> None:
    """Install the emulator where it is not; kept for the next run of the tests."""
    name = {"amd64": "emulate-x86-64", "arm64": "emulate-arm64"}[architecture]
    try:
        store.install(name)
    except ToolchainError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"the toolchain {name} cannot be installed here: {error.why}")


@pytest.fixture(scope="module")
def x86(kept_toolchains: Path) -> None:
    prepare("amd64")


@pytest.fixture(scope="module")
def arm(kept_toolchains: Path) -> None:
    prepare("arm64")


def run(architecture: str, cpu: str, model: Path, feeds: list[np.ndarray]) -> list[np.ndarray]:
    executor = LocalExecutor(emulation.command(architecture, cpu), name=cpu)
    session = open_remote(executor, "onnxruntime", model)
    try:
        return [session.run([feed])[0] for feed in feeds]
    finally:
        session.close()


def here(model: Path, feeds: list[np.ndarray]) -> list[np.ndarray]:
    session = open_remote(LocalExecutor(), "onnxruntime", model)
    try:
        return [session.run([feed])[0] for feed in feeds]
    finally:
        session.close()


def product(k: int, n: int) -> onnx.ModelProto:
    weight = weights((k, n), axis=1)
    return model_of(
        helper.make_node("MatMulInteger", ["x", "w", "x0"], ["y"], name="layer"),
        [5, k],
        TensorProto.INT32,
        {"w": weight, "x0": np.uint8(OFFSET)},
    )


def convolution(
    channels: int,
    outputs: int,
    kernel: tuple[int, int],
    group: int = 1,
    stride: int = 1,
    pad: int = 0,
) -> onnx.ModelProto:
    weight = weights((outputs, channels // group, *kernel), axis=0)
    scale = 255 * 127 * weight[0].size / 400  # outputs spread over 8 bits
    return model_of(
        helper.make_node(
            "QLinearConv",
            ["x", "one", "x0", "w", "one", "w0", "scale", "y0"],
            ["y"],
            name="layer",
            kernel_shape=list(kernel),
            group=group,
            strides=[stride] * 2,
            pads=[pad] * 4,
        ),
        [1, channels, 12, 12],
        TensorProto.UINT8,
        {
            "w": weight,
            "w0": np.int8(0),
            "x0": np.uint8(OFFSET),
            "one": np.float32(1),
            "scale": np.float32(scale),
            "y0": np.uint8(20),
        },
    )


def weights(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Random weights; the first half of the outputs has positive ones only, which saturate."""
    weight = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    rows = np.moveaxis(weight, axis, 0)
    rows[: len(rows) // 2] = np.abs(rows[: len(rows) // 2])
    return weight


def model_of(
    node: onnx.NodeProto, shape: list[int], result: int, constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", result, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def predicted(model: onnx.ModelProto, x: np.ndarray, result: np.ndarray) -> np.ndarray:
    """What the arithmetic in numpy says that the emulated processor computes."""
    (layer,) = saturation._layers(model)
    layer = saturation._Layer(layer.node, layer.data, OFFSET, layer.weight)
    scales = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    groups = []
    for rows, weight in zip(saturation._rows(layer, x), layer.weight, strict=True):
        sums, _ = saturation.saturating_dot(saturation._pairs(rows), weight)
        sums = sums - OFFSET * weight.sum(axis=(1, 2))
        groups.append(sums)
    sums = np.concatenate(groups, axis=1)
    if "scale" not in scales:
        return sums
    levels = np.rint(sums / scales["scale"]) + scales["y0"]
    return levels.clip(0, 255).T.reshape(result.shape)


LAYERS = {
    "product": product(64, 32),
    "product of odd depth": product(37, 9),
    "convolution": convolution(16, 32, (3, 3)),
    "first layer": convolution(3, 16, (3, 3), pad=1),
    "one channel": convolution(1, 16, (5, 4)),
    "odd channels": convolution(5, 7, (3, 3)),
    "pointwise": convolution(32, 32, (1, 1)),
    "grouped": convolution(32, 32, (3, 3), group=2, stride=2),
    "two outputs of a channel": convolution(16, 32, (3, 3), group=16),
}


@pytest.mark.usefixtures("x86")
@pytest.mark.parametrize("name", LAYERS)
def test_numpy_saturates_as_the_emulated_processor_does(name: str, tmp_path: Path) -> None:
    model = LAYERS[name]
    onnx.save(model, tmp_path / "layer.onnx")
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    (result,) = run("amd64", "Haswell", tmp_path / "layer.onnx", [x])
    np.testing.assert_array_equal(predicted(model, x, result), result)
    assert saturation.measure_saturation(model, [[x]])[0].share > 0.1


@pytest.mark.usefixtures("x86")
def test_a_depthwise_layer_does_not_saturate(tmp_path: Path) -> None:
    model = convolution(16, 16, (3, 3), group=16)
    onnx.save(model, tmp_path / "layer.onnx")
    assert saturation.risky_layers(model) == ()
    x = np.full((1, 16, 12, 12), 255, np.uint8)
    (result,) = run("amd64", "Haswell", tmp_path / "layer.onnx", [x])
    weight = numpy_helper.to_array(model.graph.initializer[0]).astype(int)
    scale = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "scale")
    exact = np.rint(weight.sum(axis=(1, 2, 3)) * (255 - OFFSET) / scale) + 20
    np.testing.assert_array_equal(result[0, :, 0, 0], exact.clip(0, 255))


@pytest.fixture(scope="module")
def resnet(
    shared_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Path], list[np.ndarray]]:
    """A real network in four flavours, and a few of its inputs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    x = np.load(shared_models / "cifar_resnet20" / "calibration.npz")["x"][:8]
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    feeds = list(((x / 255 - mean) / spread).transpose(0, 3, 1, 2).astype(np.float32)[:, None])

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{"input": feed} for feed in feeds])

        def get_next(self) -> dict | None:
            return next(self.feeds, None)

    unsigned, signed = QuantType.QUInt8, QuantType.QInt8
    folder = tmp_path_factory.mktemp("resnet")
    made = {}
    for flavour, data, weight, reduced in (
        ("u8s8", unsigned, signed, False),
        ("u8s8-reduced", unsigned, signed, True),
        ("u8u8", unsigned, unsigned, False),
        ("s8s8", signed, signed, False),
    ):
        made[flavour] = folder / f"{flavour}.onnx"
        quantize_static(
            shared_models / "cifar_resnet20" / "float.onnx",
            made[flavour],
            Reader(),
            per_channel=True,
            activation_type=data,
            weight_type=weight,
            reduce_range=reduced,
        )
    return made, feeds[:2]


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(np.array(one) - np.array(other)).max() / np.abs(one).max())


@pytest.mark.usefixtures("x86")
def test_without_vnni_the_u8s8_file_loses_and_seven_bits_or_u8u8_do_not(
    resnet: tuple[dict[str, Path], list[np.ndarray]],
) -> None:
    files, feeds = resnet
    there = {name: run("amd64", "Haswell", files[name], feeds) for name in files if name != "s8s8"}
    assert distance(there["u8s8-reduced"], here(files["u8s8-reduced"], feeds)) < 0.02
    assert distance(there["u8u8"], here(files["u8u8"], feeds)) < 0.02
    # the dot products of an Arm processor are exact, and so are those with VNNI
    assert distance(there["u8s8"], unoptimised(files["u8s8"], feeds)) > 0.05


def unoptimised(path: Path, feeds: list[np.ndarray]) -> list[np.ndarray]:
    """The same file in float arithmetic on its integers: what exact sums give."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options)
    return [session.run(None, {"input": feed})[0] for feed in feeds]


@pytest.mark.slow
@pytest.mark.usefixtures("arm")
def test_arm_sums_exactly_with_and_without_dot_products(
    resnet: tuple[dict[str, Path], list[np.ndarray]],
) -> None:
    files, feeds = resnet
    files = {name: files[name] for name in ("u8s8", "u8u8", "s8s8")}
    plain = {name: run("arm64", "cortex-a53", files[name], feeds[:1]) for name in files}
    dotprod = {name: run("arm64", "neoverse-n1", files[name], feeds[:1]) for name in files}
    for name in files:
        np.testing.assert_array_equal(plain[name], dotprod[name])
        assert distance(plain[name], unoptimised(files[name], feeds[:1])) < 0.05


@pytest.mark.usefixtures("x86")
def test_the_doctor_finds_no_wide_instructions_on_haswell() -> None:
    diagnosis = examine("emulate-x86-64")
    assert diagnosis.healthy
    haswell = diagnosis.checked["Haswell"]
    assert "avx2" in haswell["features"]
    assert haswell["saturates"]


@pytest.mark.slow
@pytest.mark.usefixtures("arm")
def test_the_doctor_tells_arm_processors_apart() -> None:
    diagnosis = examine("emulate-arm64")
    assert diagnosis.healthy
    assert {name: "asimddp" in reply["features"] for name, reply in diagnosis.checked.items()} == {
        "cortex-a53": False,
        "neoverse-n1": True,
    }
    assert not any(reply["saturates"] for reply in diagnosis.checked.values())


@pytest.mark.slow
@pytest.mark.usefixtures("arm")
def test_the_emulated_arm_writes_nothing_outside_its_root() -> None:
    program = "import sys; print(sys.prefix, *sys.path, sep='\\n')"
    printed = subprocess.run(
        [*emulation.command("arm64"), "-c", program], capture_output=True, text=True, check=True
    )
    prefix, first, *rest = printed.stdout.splitlines()
    assert first == ""
    home, source = str(store.require("emulate-arm64").folder), str(Path(__file__).parents[2])
    assert prefix.startswith(home)
    assert all(path.startswith(home) or path == source for path in rest)


@pytest.mark.parametrize(
    ("architecture", "features", "cpu"),
    [
        ("amd64", ["avx2"], "Haswell"),
        ("amd64", ["avx2", "avx512_vnni|avx_vnni"], None),
        ("arm64", ["asimd"], "cortex-a53"),
        ("arm64", ["asimd", "asimddp"], "neoverse-n1"),
        ("riscv64", [], None),
    ],
)
def test_the_plainest_processor_with_the_features_is_chosen(
    architecture: str, features: list[str], cpu: str | None
) -> None:
    assert emulation.cpu_for(architecture, features) == cpu


def test_what_is_not_emulated_is_named() -> None:
    with pytest.raises(TargetError, match=re.escape("toolchains for arm64, amd64")):
        emulation.command("riscv64")
    with pytest.raises(TargetError, match="Known are cortex-a53, neoverse-n1"):
        emulation.command("arm64", "cortex-m4")


def test_an_emulator_that_is_not_installed_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_TOOLCHAINS", str(tmp_path))
    assert not emulation.is_ready("arm64")
    with pytest.raises(ToolchainError, match="edgeml toolchain install emulate-arm64"):
        emulation.command("arm64")
