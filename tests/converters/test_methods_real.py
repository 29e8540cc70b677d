"""The methods on trained models from outside, executed on their real data."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from converters.methods import (
    NotQuantizableError,
    Prepared,
    Statistics,
    head_nodes,
    observe,
    prepare,
    quantize,
    report_on,
    sensitivity,
    worst,
)
from converters.recipe import dynamic, float16, keep_float, static_qdq, weight_only

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the evaluator's


class Case(msgspec.Struct):
    """A model, calibrated, and how right a quantized form of it is."""

    prepared: Prepared
    statistics: Statistics
    feeds: Callable[[], Iterable[list[np.ndarray]]]
    evaluate: Callable[[bytes], dict[str, float]]


@pytest.fixture(scope="module")
def evaluator(shared_models: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate", shared_models / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def load(
    shared_models: Path, evaluator: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Case]:
    def loaded(name: str, samples: int = 64, judged: int | None = None) -> Case:
        folder = shared_models / name
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        prepared = prepare((folder / "float.onnx").read_bytes())
        with np.load(folder / "calibration.npz") as arrays:
            x = evaluator.preprocess(spec, arrays["x"][:samples])
        dims = prepared.proto.graph.input[0].type.tensor_type.shape.dim
        x = evaluator.fit(x, [d.dim_value or None for d in dims])

        def feeds() -> Iterable[list[np.ndarray]]:
            return ([sample[None]] for sample in x)

        def evaluate(data: bytes) -> Any:
            path = tmp_path_factory.mktemp("made") / "made.onnx"
            path.write_bytes(data)
            with np.load(folder / "dev.npz") as arrays:
                np.savez(path.with_name("dev.npz"), **{k: v[:judged] for k, v in arrays.items()})
            return evaluator.evaluate(str(folder), str(path), str(path.with_name("dev.npz")))

        return Case(prepared, observe(prepared, feeds), feeds, evaluate)

    return loaded


@pytest.fixture(scope="module")
def keywords(load: Callable[..., Case]) -> Case:
    return load("kws_dscnn")


@pytest.fixture(scope="module")
def faces(load: Callable[..., Case]) -> Case:
    return load("yunet", samples=12)


@pytest.mark.parametrize(
    "rules",
    [
        static_qdq("u8s8"),
        static_qdq("u8s8-reduced"),
        static_qdq("s8s8"),
        static_qdq("u8u8"),
        static_qdq("u8s8", calibration="percentile"),
        static_qdq("u8s8", calibration="entropy"),
        static_qdq("u8s8", equalize=True, bias_correction=True),
        dynamic(),
        float16(),
        weight_only("int8"),
        weight_only("int4"),
    ],
    ids=lambda rules: str(hashlib.sha256(repr(rules).encode()).hexdigest()[:6]),
)
def test_keyword_spotting_keeps_its_accuracy_by_every_method(keywords: Case, rules: tuple) -> None:
    made = quantize(keywords.prepared, keywords.statistics, rules)
    assert made.nodes >= 1
    assert keywords.evaluate(made.data)["top1"] >= 0.89


def test_a_recurrent_net_keeps_its_accuracy_by_dynamic_quantization(
    load: Callable[..., Case],
) -> None:
    case = load("mnist_lstm")
    made = quantize(case.prepared, None, dynamic())
    assert made.nodes == 2
    assert len(made.data) < 0.4 * len(case.prepared.proto.SerializeToString())
    assert case.evaluate(made.data)["top1"] > 0.980


def test_residual_nets_keep_their_accuracy(load: Callable[..., Case]) -> None:
    for name, least in [("cifar_resnet8", 0.78), ("cifar_resnet20", 0.84)]:
        case = load(name)
        made = quantize(case.prepared, case.statistics, static_qdq("u8s8"))
        assert case.evaluate(made.data)["top1"] >= least


def test_text_lines_are_read_with_their_products_in_few_bits(load: Callable[..., Case]) -> None:
    case = load("ppocr_rec", samples=2, judged=40)
    made = quantize(case.prepared, None, weight_only("int4"))
    assert made.nodes == 9
    assert case.evaluate(made.data)["exact"] >= 0.95


def test_a_detector_without_products_has_nothing_for_weight_only_or_dynamic(faces: Case) -> None:
    for rules in (weight_only("int4"), weight_only("int8"), dynamic()):
        with pytest.raises(NotQuantizableError, match="nothing"):
            quantize(faces.prepared, None, rules)


def fidelity(case: Case, data: bytes) -> float:
    """The mean signal-to-noise ratio of the model's outputs in decibels."""
    outputs = {o.name for o in case.prepared.proto.graph.output}
    last = {n.name for n in case.prepared.proto.graph.node if outputs & set(n.output)}
    losses = sensitivity(case.prepared, data, case.feeds, isolated=False)
    return float(np.mean([loss.sqnr_db for loss in losses if loss.name in last]))


def as_yolo_exports(case: Case, sizes: tuple[int, ...] = (8, 16, 32)) -> Case:
    """The detector with scores and boxes in pixels decoded and joined into one output."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.prepared.proto)
    del proto.graph.output[:]
    for stride in sizes:
        cells = 320 // stride
        down, right = np.divmod(np.arange(cells * cells), cells)
        grid = np.stack([right, down, 0 * down, 0 * down], 1)[None].astype(np.float32)
        for name, value in ((f"grid_{stride}", grid), (f"stride_{stride}", np.float32(stride))):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
        parts = [f"cls_{stride}", f"obj_{stride}", f"pixels_{stride}"]
        for operator, inputs, output in (
            ("Add", [f"bbox_{stride}", f"grid_{stride}"], f"cells_{stride}"),
            ("Mul", [f"cells_{stride}", f"stride_{stride}"], f"pixels_{stride}"),
            ("Concat", parts, f"rows_{stride}"),
        ):
            settings = {"axis": 2} if operator == "Concat" else {}
            proto.graph.node.append(
                onnx.helper.make_node(operator, inputs, [output], name=output, **settings)
            )
    rows = [f"rows_{stride}" for stride in sizes]
    proto.graph.node.append(onnx.helper.make_node("Concat", rows, ["y"], name="join", axis=1))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    prepared = prepare(proto.SerializeToString())
    return Case(prepared, observe(prepared, case.feeds), case.feeds, case.evaluate)


def scores(data: bytes, case: Case) -> np.ndarray:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"input": feed[0]})[0][0, :, :2] for feed in case.feeds()])


def test_scores_joined_with_boxes_survive_by_the_head_in_float(faces: Case) -> None:
    case = as_yolo_exports(faces)
    rules = static_qdq("u8s8")
    head = head_nodes(case.prepared, case.statistics)
    assert {"join", "rows_8", "pixels_8"} <= set(head)
    exact = scores(case.prepared.proto.SerializeToString(), case)
    whole, split = (
        scores(quantize(case.prepared, case.statistics, r).data, case)
        for r in (rules, keep_float(rules, head))
    )
    assert (exact[..., 1] > 0.5).sum() > 20
    assert np.abs(split - exact).mean() < 0.1 * np.abs(whole - exact).mean()
    found, kept = (((s[..., 1] > 0.5) & (exact[..., 1] > 0.5)).sum() for s in (whole, split))
    assert kept > 0.9 * (exact[..., 1] > 0.5).sum()
    assert found < kept


def test_a_detector_gains_by_its_most_sensitive_nodes_in_float(faces: Case) -> None:
    rules = static_qdq("u8s8")
    made = quantize(faces.prepared, faces.statistics, rules)
    losses = sensitivity(faces.prepared, made.data, faces.feeds)
    mixed = quantize(faces.prepared, faces.statistics, keep_float(rules, worst(losses, 20)))
    assert fidelity(faces, mixed.data) > fidelity(faces, made.data) + 1


def test_a_classifier_is_taken_for_no_detector(keywords: Case) -> None:
    assert head_nodes(keywords.prepared, keywords.statistics) == ()


def test_reverting_what_loses_most_recovers_more_than_reverting_what_loses_least(
    keywords: Case,
) -> None:
    rules = static_qdq("u8s8", per_channel=False)
    made = quantize(keywords.prepared, keywords.statistics, rules)
    losses = [
        loss
        for loss in sensitivity(keywords.prepared, made.data, keywords.feeds)
        if loss.operator == "Conv"
    ]
    best, least = (
        fidelity(
            keywords,
            quantize(keywords.prepared, keywords.statistics, keep_float(rules, names)).data,
        )
        for names in (worst(losses, 3), worst(losses[::-1], 3))
    )
    assert best > least + 3


def test_the_calibration_of_a_real_set_is_reported(keywords: Case) -> None:
    report = report_on(
        keywords.prepared, keywords.statistics, calibration="percentile", percentile=99
    )
    assert report.samples == 64
    assert report.saturated
    assert 1 <= report.converged_after <= 64


AGAIN = """
import hashlib, sys, numpy as np
from pathlib import Path
from converters.methods import observe, prepare, quantize
from converters.recipe import dynamic, float16, keep_float, static_qdq, weight_only
prepared = prepare(Path(sys.argv[1]).read_bytes())
x = np.random.default_rng(5).normal(0, 20, (8, 1, 49, 10, 1)).astype(np.float32)
statistics = observe(prepared, lambda: ([image] for image in x))
for rules in (
    static_qdq("u8u8", calibration="entropy"),
    keep_float(static_qdq("u8s8"), ["Conv__97", "Conv__95"]),
    static_qdq("u8s8", calibration="percentile", equalize=True, bias_correction=True),
    dynamic(), float16(), weight_only("int4"), weight_only("int8"),
):
    print(hashlib.sha256(quantize(prepared, statistics, rules).data).hexdigest())
"""


def test_two_processes_with_other_hash_seeds_write_the_same_bytes(shared_models: Path) -> None:
    digests = [
        subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                AGAIN,
                str(shared_models / "kws_dscnn/float.onnx"),
            ],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1]
    assert len(set(digests[0].split())) == 7
