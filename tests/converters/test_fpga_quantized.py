"""Models that came quantized, QDQ or QONNX: their codes and scales are the gateware's."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from cloud_sync.evidence import Evidence, Verdict, Verification
from cloud_sync.release import Layout
from converters.conversion import convert
from converters.fpga import vitis
from converters.fpga.integer.from_onnx import integer_graph
from converters.fpga.integer.graph import Conv
from converters.fpga.integer.quantize import Widths
from converters.fpga.integer.reading import read
from converters.fpga.integer.reference import decode_output, encode_input, run
from converters.model import load_model
from converters.qonnx import levels, lowered
from converters.result import ConversionResult
from edgeml.errors import ModelError
from hardware.profiles import select
from tests import needs

from .locked_tools import prepared
from .onnx_nets import net

make = helper.make_node
ENGINE = {"architecture": "engine", "until": "rtl"}
RNG = np.random.default_rng(0)
INPUTS, HIDDEN, CLASSES = 6, 12, 3
WEIGHTS = RNG.normal(0, 1, (HIDDEN, INPUTS)).astype(np.float32)
LAST = RNG.normal(0, 1, (CLASSES, HIDDEN)).astype(np.float32)
ENTERED, STEPS, HELD, LAST_STEP = 1 / 32, np.abs(WEIGHTS).max(axis=1) / 3, 0.25, 0.125


def quant(
    values: np.ndarray, scale: Any, bits: int, *, signed: bool = True, narrow: bool = False
) -> np.ndarray:
    """What the definition of `Quant` says."""
    codes = np.clip(np.round(values / scale), *levels(bits, signed=signed, narrow=narrow))
    return np.asarray(codes * scale, np.float32)


def computed(x: np.ndarray) -> np.ndarray:
    """The answers of `qonnx_net`."""
    entered = quant(x, ENTERED, 8, narrow=True)
    hidden = entered @ quant(WEIGHTS, STEPS[:, None], 3, narrow=True).T
    held = quant(np.maximum(hidden, 0), HELD, 4, signed=False)
    return np.asarray(held @ quant(LAST, LAST_STEP, 5).T, np.float32)


def qonnx_net(opset: int = 17, changed: Mapping[str, float] | None = None) -> bytes:
    """Two layers of 3 and 5 bits, 4 between them, as Brevitas exports them."""
    bits = {"b3": 3.0, "b4": 4.0, "b5": 5.0, "b8": 8.0, **(changed or {})}
    general = {"domain": "qonnx.custom_op.general", "rounding_mode": "ROUND"}
    nodes = [
        make("Quant", ["x", "s0", "zero", "b8"], ["a"], "enter", signed=1, narrow=1, **general),
        make("Quant", ["w", "s1", "zero", "b3"], ["wq"], "weigh", signed=1, narrow=1, **general),
        make("Gemm", ["a", "wq"], ["h"], "hidden", transB=1),
        make("Relu", ["h"], ["r"]),
        make("IntQuant", ["r", "s2", "zero", "b4"], ["q"], "hold", signed=0, narrow=0, **general),
        make("Quant", ["v", "s3", "zero", "b5"], ["vq"], "last", signed=1, narrow=0, **general),
        make("Transpose", ["vq"], ["vt"], perm=[1, 0]),
        make("MatMul", ["q", "vt"], ["y"], "classify"),
    ]
    constants: dict[str, Any] = {name: np.float32(value) for name, value in bits.items()}
    constants |= {"w": WEIGHTS, "v": LAST, "zero": np.float32(0), "s3": np.float32(LAST_STEP)}
    constants |= {"s0": np.float32(ENTERED), "s1": STEPS[:, None], "s2": np.float32(HELD)}
    model = onnx.load_model_from_string(net(nodes, constants, (INPUTS,), opset=opset))
    model.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    return model.SerializeToString()  # type: ignore[no-any-return]


def samples_of(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, INPUTS)).astype(np.float32)


@pytest.mark.parametrize("opset", [9, 11, 17])
def test_a_lowered_quant_computes_what_its_definition_says(opset: int) -> None:
    model = lowered(onnx.load_model_from_string(qonnx_net(opset)))
    assert not {"Quant", "IntQuant"} & {node.op_type for node in model.graph.node}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    samples = samples_of(50)
    [given] = session.run(None, {"x": samples})
    np.testing.assert_allclose(given, computed(samples), atol=1e-5)


def test_a_model_in_qonnx_keeps_its_bits_and_scales() -> None:
    samples = 2 * samples_of(200)
    assert samples.min() < -128 * ENTERED, "some lie below the codes of a narrow range"
    graph = integer_graph(qonnx_net(), samples)
    entered, first, last = (layer for layer in graph.layers if isinstance(layer, Conv))
    assert (entered.requantize.low, entered.requantize.high) == (-127, 127)
    assert (first.weight_bits, last.weight_bits) == (3, 5)
    assert np.array_equal(
        first.weights.reshape(HIDDEN, INPUTS), np.clip(np.round(WEIGHTS / STEPS[:, None]), -3, 3)
    )
    held = graph.tensors[first.output]
    assert (held.bits, held.signed, held.scale) == (4, False, HELD)
    given = decode_output(graph, run(graph, encode_input(graph, samples)))
    wanted = computed(samples)
    # Its output has no scale of its own: calibration gives it 8 bits.
    assert np.abs(given - wanted).max() <= np.abs(wanted).max() / 127
    assert (given.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.95


@pytest.mark.parametrize(
    ("changed", "why"),
    [({"b4": 16}, "16 bits"), ({"b5": 1}, "2 or more"), ({"b3": 2.5}, "2 or more")],
)
def test_a_quant_that_cannot_be_read_is_refused_by_name(
    changed: dict[str, float], why: str
) -> None:
    with pytest.raises(ModelError, match=r"operator (Int)?Quant \(\w+\)") as caught:
        lowered(onnx.load_model_from_string(qonnx_net(changed=changed)))
    assert why in caught.value.why


def test_codes_of_four_bits_are_those_of_onnxs_own_type() -> None:
    """From the operator set 21 on, pairs have codes of 4 bits without a `Clip`."""
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["q"]),
        make("DequantizeLinear", ["q", "s", "z"], ["f"]),
        make("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    constants = {"s": np.float32(0.25), "w": LAST[:, :INPUTS]}
    model = onnx.load_model_from_string(net(nodes, constants, (INPUTS,), opset=21))
    model.graph.initializer.append(helper.make_tensor("z", onnx.TensorProto.INT4, [], [0]))
    graph = integer_graph(model.SerializeToString(), samples_of(40))
    entered = graph.tensors[graph.input]
    assert (entered.bits, entered.signed, entered.scale) == (4, True, 0.25)


def test_operators_that_compute_with_codes_are_refused_with_the_way_out() -> None:
    model = net([make("MatMulInteger", ["x", "x"], ["y"])], {}, (INPUTS,))
    with pytest.raises(ModelError, match="operator MatMulInteger") as caught:
        read(model)
    assert "QuantFormat.QDQ" in caught.value.fix


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: np.ndarray) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self._left, None)
        return None if sample is None else {"x": sample[None]}


def float_net() -> bytes:
    nodes = [
        make("Gemm", ["x", "w", "b"], ["h"], "hidden", transB=1),
        make("Relu", ["h"], ["r"], "relu"),
        make("Gemm", ["r", "v"], ["y"], "classify", transB=1),
    ]
    constants = {"w": WEIGHTS, "v": LAST, "b": np.linspace(-1, 1, HIDDEN).astype(np.float32)}
    return net(nodes, constants, (INPUTS,))


def qdq_net(folder: Path, *, per_channel: bool) -> bytes:
    """The float net through onnxruntime's quantizer."""
    (folder / "float.onnx").write_bytes(float_net())
    quantize_static(
        folder / "float.onnx",
        folder / "qdq.onnx",
        _Reader(samples_of(100, seed=2)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
    )
    return (folder / "qdq.onnx").read_bytes()


@pytest.mark.parametrize("per_channel", [False, True])
def test_what_onnxruntimes_quantizer_wrote_is_read(tmp_path: Path, *, per_channel: bool) -> None:
    model = qdq_net(tmp_path, per_channel=per_channel)
    samples = samples_of(100)
    graph = integer_graph(model, samples)
    [weights] = (
        onnx.numpy_helper.to_array(t)
        for t in onnx.load_model_from_string(model).graph.initializer
        if t.name.startswith("w_quant")
    )
    first = graph.layers[0]
    assert isinstance(first, Conv)
    assert np.array_equal(first.weights.reshape(HIDDEN, INPUTS), weights)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    [wanted] = session.run(None, {"x": samples})
    given = decode_output(graph, run(graph, encode_input(graph, samples)))
    assert np.sqrt(np.square(given - wanted).mean()) < 0.01 * np.ptp(wanted)


def write_data(folder: Path) -> None:
    for name, count, seed in (("calibration", 100, 3), ("evaluation", 300, 4)):
        x = samples_of(count, seed)
        np.savez(folder / f"{name}.npz", x=x, y=computed(x).argmax(axis=1))


def converted(folder: Path, model: bytes, out: str = "out", **more: Any) -> ConversionResult:
    (folder / "model.onnx").write_bytes(model)
    write_data(folder)
    told: dict[str, Any] = {"targets": ("fpga-ecp5-25k",), "options": ENGINE}
    told |= {"max_drop": 0.1} | more
    return convert(
        folder / "model.onnx",
        calibration=folder / "calibration.npz",
        evaluation=folder / "evaluation.npz",
        name="net",
        version="1",
        out=folder / out,
        **told,
    )


def record_of(out: Path) -> Evidence:
    layout = Layout.open(out)
    [release] = layout.releases()
    [record] = layout.evidence(release.digest)
    return record


def needs_verilator() -> None:
    needs.program("verilator", "verilator")
    needs.program("g++", "g++")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["qonnx", "qdq"])
def test_the_command_takes_them_to_gateware(tmp_path: Path, kind: str) -> None:
    needs_verilator()
    model = qonnx_net() if kind == "qonnx" else qdq_net(tmp_path, per_channel=True)
    result = converted(tmp_path, model)
    assert [variant.runtime for variant in result.variants] == ["fpga"]
    record = record_of(tmp_path / "out")
    gates = {gate.name: gate for gate in record.gates}
    assert {gates["accuracy"].result, gates["rtl"].result} == {Verdict.PASS}
    assert record.compiled is not None
    assert "came quantized" in " ".join(record.compiled.remarks)


def test_a_target_that_quantizes_itself_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="quantized already"):
        converted(tmp_path, qonnx_net(), targets=("cpu-x86-64",), options={})
    assert load_model(tmp_path / "model.onnx").operators["QuantizeLinear"] == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_width_for_each_layer_is_found_recorded_and_replayed(tmp_path: Path) -> None:
    needs_verilator()
    options = ENGINE | {"bits": "search"}
    first = converted(tmp_path, float_net(), options=options)
    recipe = first.variants[0].recipe
    record = record_of(tmp_path / "out")
    assert record.compiled is not None
    found = dict(line.split("=") for line in record.compiled.settings["weight_bits"].splitlines())
    assert set(found) == {"hidden", "classify"}
    assert all(2 <= int(bits) <= 8 for bits in found.values())
    assert min(int(bits) for bits in found.values()) < 8
    again = converted(tmp_path, float_net(), "again", targets=(), options={}, recipe=recipe)
    assert again.release == first.release


@pytest.mark.toolchains
@pytest.mark.timeout(900)
def test_an_hls_projects_code_gives_the_integer_models_bits(
    tmp_path: Path, kept_toolchains: Path
) -> None:
    needs.program("g++", "g++")
    assert prepared("hls4ml").folder.is_relative_to(kept_toolchains)
    result = converted(tmp_path, float_net(), targets=("fpga-amd-vitis",), options={})
    [variant] = result.variants
    assert variant.runtime == "fpga-hls"
    record = record_of(tmp_path / "out")
    assert record.verification is Verification.PRE_COMPILE_EXECUTED
    gates = {gate.name: gate for gate in record.gates}
    assert (gates["csim"].result, gates["csim"].value, gates["csim"].n) == (Verdict.PASS, 0.0, 32)
    assert record.compiled is not None
    assert "not synthesised" in " ".join(record.compiled.remarks)
    assert "not synthesised" in (tmp_path / "out" / "report.html").read_text()


def picture_net() -> bytes:
    """What a small CNN has: padding, strides, a depthwise layer, a residual, pools, a join."""

    def normal(*shape: int) -> np.ndarray:
        return RNG.normal(0, 0.5, shape).astype(np.float32)

    nodes = [
        make("Conv", ["x", "w0", "b0"], ["a"], "first", pads=[1] * 4),
        make("Relu", ["a"], ["r"]),
        make("Conv", ["r", "wd"], ["d"], "depthwise", group=3, pads=[1] * 4),
        make("Relu", ["d"], ["e"]),
        make("Add", ["r", "e"], ["s"], "residual"),
        make("MaxPool", ["s"], ["m"], "largest", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        make("Conv", ["m", "w1"], ["f"], "strided", strides=[2, 2], pads=[1] * 4),
        make("Relu", ["f"], ["g"]),
        make("GlobalAveragePool", ["g"], ["h"], "average"),
        make("GlobalMaxPool", ["g"], ["i"], "most"),
        make("Concat", ["h", "i"], ["j"], "join", axis=1),
        make("Flatten", ["j"], ["k"]),
        make("Gemm", ["k", "wl"], ["y"], "classify"),
    ]
    constants = {"w0": normal(3, 1, 3, 3), "b0": normal(3), "wd": normal(3, 1, 3, 3)}
    return net(nodes, constants | {"w1": normal(4, 3, 3, 3), "wl": normal(8, CLASSES)}, (1, 8, 8))


@pytest.mark.toolchains
@pytest.mark.timeout(900)
@pytest.mark.parametrize("widths", [Widths(powers_of_two=True), Widths()])
def test_a_cnn_as_an_hls_project_is_exact(
    tmp_path: Path, kept_toolchains: Path, widths: Widths
) -> None:
    needs.program("g++", "g++")
    assert prepared("hls4ml").folder.is_relative_to(kept_toolchains)
    samples = np.random.default_rng(5).normal(0, 1, (40, 1, 8, 8)).astype(np.float32)
    graph = integer_graph(picture_net(), samples, widths)
    [settings] = (p.settings for p in select(["fpga-amd-vitis"]))
    made = vitis.build(graph, settings, tmp_path, encode_input(graph, samples), lambda _: None)
    [gate] = made.gates
    assert (gate.name, gate.result, gate.n) == ("csim", Verdict.PASS, 40)
    with zipfile.ZipFile(made.path) as archive:
        assert {"graph.json", "build_prj.tcl", "firmware/edgeml_hls.cpp"} <= set(archive.namelist())


@pytest.mark.toolchains
def test_what_no_type_of_hls_computes_is_refused_by_name(
    tmp_path: Path, kept_toolchains: Path
) -> None:
    assert prepared("hls4ml").folder.is_relative_to(kept_toolchains)
    nodes = [
        make("Gemm", ["x", "w"], ["h"], "hidden", transB=1),
        make("Tanh", ["h"], ["t"], "bend"),
        make("Gemm", ["t", "v"], ["y"], transB=1),
    ]
    graph = integer_graph(net(nodes, {"w": WEIGHTS, "v": LAST}, (INPUTS,)), samples_of(40))
    [settings] = (p.settings for p in select(["fpga-amd-vitis"]))
    with pytest.raises(ModelError, match="cannot become an HLS project") as caught:
        vitis.build(graph, settings, tmp_path, encode_input(graph, samples_of(4)), lambda _: None)
    assert "the layer bend looks up a function" in caught.value.why
