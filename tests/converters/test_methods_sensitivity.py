"""Sensitivity, heads, bias correction and equalisation: the culprit is found, the cure helps."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.methods import (
    NotQuantizableError,
    Prepared,
    head_nodes,
    observe,
    overflowing_nodes,
    prepare,
    quantize,
    reference_of,
    sensitivity,
    worst,
)
from converters.methods.bias import correct_bias
from converters.methods.equalize import equalize
from converters.recipe import keep_float, static_qdq
from edgeml.errors import ModelError

RNG = np.random.default_rng(11)
SIZE = 10
CHANNELS = 8
IMAGES = RNG.uniform(0, 1, (24, 1, 3, SIZE, SIZE)).astype(np.float32)
RULES = static_qdq("u8s8")


def feeds(images: np.ndarray = IMAGES) -> Callable[[], Iterator[list[np.ndarray]]]:
    return lambda: ([image] for image in images)


def model(nodes: list, constants: dict[str, np.ndarray], outputs: tuple = ("y",)) -> Prepared:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return prepare(made.SerializeToString())


def conv(source: str, weight: str, output: str, **settings: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [output], name=output, **settings)


def separable(spread: float = 1.0) -> Prepared:
    """Pointwise, depthwise, pointwise, of channels whose ranges differ by factors."""
    factors = np.geomspace(1, spread, CHANNELS).reshape(-1, 1, 1, 1)
    nodes = [
        conv("x", "w1", "c1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="r1"),
        conv("r1", "w2", "c2", group=CHANNELS, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="r2"),
        conv("r2", "w3", "y"),
    ]
    constants = {
        "w1": RNG.normal(0.1, 0.5, (CHANNELS, 3, 1, 1)) * factors,
        "w2": np.abs(RNG.normal(0, 0.3, (CHANNELS, 1, 3, 3))),
        "w3": RNG.normal(0, 0.5, (4, CHANNELS, 1, 1)) / factors.reshape(1, -1, 1, 1),
    }
    return model(nodes, constants)


def detector() -> Prepared:
    """Boxes in pixels and scores below one, joined in one tensor, as YOLO exports them."""
    nodes = [
        conv("x", "w1", "body"),
        helper.make_node("Relu", ["body"], ["r"], name="relu"),
        conv("r", "w2", "box_conv"),
        conv("r", "w3", "score_conv"),
        helper.make_node("Exp", ["box_conv"], ["boxes"], name="scale"),
        helper.make_node("Sigmoid", ["score_conv"], ["scores"], name="sigmoid"),
        helper.make_node("Concat", ["boxes", "scores"], ["y"], name="join", axis=1),
    ]
    constants = {
        "w1": RNG.normal(0, 0.5, (CHANNELS, 3, 3, 3)),
        "w2": RNG.uniform(0.3, 1, (4, CHANNELS, 1, 1)),
        "w3": RNG.normal(0, 0.5, (3, CHANNELS, 1, 1)),
    }
    return model(nodes, constants)


def run(made: bytes | Prepared) -> np.ndarray:
    content = made.proto.SerializeToString() if isinstance(made, Prepared) else made
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": image})[0] for image in IMAGES])


def sqnr(exact: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - got) ** 2).sum()))


def test_scores_that_share_a_scale_with_boxes_are_lost_unless_the_head_stays_in_float() -> None:
    prepared = detector()
    statistics = observe(prepared, feeds())
    head = head_nodes(prepared, statistics)
    assert set(head) == {"scale", "sigmoid", "join"}
    exact = run(prepared)[:, 4:]
    whole = quantize(prepared, statistics, RULES)
    split = quantize(prepared, statistics, keep_float(RULES, head))
    assert sqnr(exact, run(whole.data)[:, 4:]) < 15
    assert sqnr(exact, run(split.data)[:, 4:]) > 30
    assert split.nodes == whole.nodes


def test_a_head_may_take_its_last_convolutions_along() -> None:
    prepared = detector()
    statistics = observe(prepared, feeds())
    assert set(head_nodes(prepared, statistics, layers=1)) == {
        "relu", "box_conv", "score_conv", "scale", "sigmoid", "join",
    }  # fmt: skip


def test_outputs_of_one_range_are_no_head() -> None:
    prepared = separable()
    assert head_nodes(prepared, observe(prepared, feeds())) == ()


def test_the_node_that_loses_most_comes_first_and_reverting_it_helps() -> None:
    nodes = [
        conv("x", "w1", "c1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="r1"),
        conv("r1", "w2", "culprit"),
        helper.make_node("Relu", ["culprit"], ["r2"], name="r2"),
        conv("r2", "w3", "y"),
    ]
    constants = {f"w{i}": RNG.normal(0, 0.5, (CHANNELS, CHANNELS, 1, 1)) for i in (1, 2, 3)}
    constants["w1"] = constants["w1"][:, :3]
    constants["w1"][0] = -1  # a channel that is always zero behind its ReLU
    constants["w2"][:, 0] = 500  # and weights that read it, which take the whole scale
    prepared = model(nodes, constants)
    statistics = observe(prepared, feeds())
    made = quantize(prepared, statistics, RULES)
    losses = sensitivity(prepared, made.data, feeds())
    assert [loss.sqnr_db for loss in losses] == sorted(loss.sqnr_db for loss in losses)
    assert losses[0].name == "culprit"
    mended = quantize(prepared, statistics, keep_float(RULES, worst(losses, 1)))
    assert sqnr(run(prepared), run(made.data)) < 15
    assert sqnr(run(prepared), run(mended.data)) > 25


def test_the_loss_of_the_output_is_that_of_executing_both_models() -> None:
    prepared = separable()
    made = quantize(prepared, observe(prepared, feeds()), RULES)
    gathered = sensitivity(prepared, made.data, feeds(), samples=len(IMAGES), isolated=False)
    found = next(loss.sqnr_db for loss in gathered if loss.name == "y")
    assert found == pytest.approx(sqnr(run(prepared), run(made.data)), abs=1.5)


def test_a_loss_that_gathers_is_no_smaller_than_the_one_that_a_node_adds() -> None:
    prepared = separable()
    made = quantize(prepared, observe(prepared, feeds()), RULES)
    own, gathered = (
        {loss.name: loss.sqnr_db for loss in sensitivity(prepared, made.data, feeds(), isolated=i)}
        for i in (True, False)
    )
    assert own["c1"] == pytest.approx(gathered["c1"], abs=0.1)
    assert gathered["y"] < own["y"]


def test_an_equalised_model_is_compared_with_the_equalised_float_model() -> None:
    prepared = separable(spread=100)
    statistics = observe(prepared, feeds())
    rules = static_qdq("u8s8", equalize=True)
    made = quantize(prepared, statistics, rules)
    reference = reference_of(prepared, statistics, rules)
    assert min(loss.sqnr_db for loss in sensitivity(reference, made.data, feeds())) > 25
    assert reference_of(prepared, statistics, RULES) is prepared


def test_comparing_on_no_samples_is_refused() -> None:
    prepared = separable()
    made = quantize(prepared, observe(prepared, feeds()), RULES)
    with pytest.raises(ModelError, match="nothing to compare with"):
        sensitivity(prepared, made.data, list)


def test_nodes_beyond_the_range_of_half_precision_are_named() -> None:
    nodes = [
        conv("x", "w1", "c1"),
        helper.make_node("Exp", ["c1"], ["m"], name="blow_up"),
        helper.make_node("Tanh", ["m"], ["y"], name="tanh"),
    ]
    constants = {"w1": np.full((4, 3, 1, 1), 8)}
    prepared = model(nodes, constants)
    statistics = observe(prepared, feeds())
    assert overflowing_nodes(prepared, statistics, limit=65504) == ("blow_up", "tanh")
    assert overflowing_nodes(prepared, statistics) == ()


def test_equalising_leaves_the_outputs_and_saves_unequal_channels() -> None:
    prepared = separable(spread=100)
    exact = run(prepared)
    for per_channel in (True, False):
        np.testing.assert_allclose(
            run(equalize(prepared, feeds(), per_channel=per_channel)), exact, rtol=1e-4, atol=1e-4
        )
    statistics = observe(prepared, feeds())
    for per_channel in (True, False):
        plain, equal = (
            quantize(
                prepared,
                statistics,
                static_qdq("u8s8", per_channel=per_channel, equalize=equalized),
            )
            for equalized in (False, True)
        )
        assert sqnr(exact, run(equal.data)) > sqnr(exact, run(plain.data)) + 3


def test_equalising_handles_grouped_convolutions() -> None:
    nodes = [
        conv("x", "w1", "c1"),
        conv("c1", "w2", "c2", group=2),
        helper.make_node("LeakyRelu", ["c2"], ["r2"], name="r2", alpha=0.1),
        conv("r2", "w3", "y"),
    ]
    constants = {
        "w1": RNG.normal(0, 0.5, (CHANNELS, 3, 1, 1)),
        "w2": RNG.normal(0, 0.5, (6, CHANNELS // 2, 3, 3)),
        "w3": RNG.normal(0, 0.5, (2, 6, 1, 1)),
    }
    prepared = model(nodes, constants)
    for per_channel in (True, False):
        np.testing.assert_allclose(
            run(equalize(prepared, feeds(), per_channel=per_channel)),
            run(prepared),
            rtol=1e-4,
            atol=1e-4,
        )


def test_bias_correction_takes_the_shift_out_of_each_channel() -> None:
    prepared = separable(spread=30)
    exact = run(prepared)
    statistics = observe(prepared, feeds())
    rough, corrected = (
        quantize(
            prepared,
            statistics,
            static_qdq("u8s8-reduced", per_channel=False, bias_correction=correction),
        )
        for correction in (False, True)
    )
    shift, left = (
        np.abs((run(made.data) - exact).mean((0, 2, 3))).mean() for made in (rough, corrected)
    )
    assert left < 0.6 * shift
    assert sqnr(exact, run(corrected.data)) > sqnr(exact, run(rough.data))


def test_bias_correction_changes_biases_alone() -> None:
    prepared = separable()
    made = quantize(prepared, observe(prepared, feeds()), RULES)
    corrected = correct_bias(prepared, made.data, feeds())
    for node in corrected.proto.graph.node:
        assert node.op_type != "Conv" or len(node.input) == 3
    before = {t.name: t for t in prepared.proto.graph.initializer}
    after = {t.name: t for t in corrected.proto.graph.initializer}
    assert all(after[name] == tensor for name, tensor in before.items())
    assert len(after) == len(before) + 3


@pytest.mark.parametrize("parameter", ["equalize", "bias_correction"])
def test_a_cure_that_has_nothing_to_cure_is_refused(parameter: str) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    prepared = model(nodes, {"w": RNG.normal(0, 0.5, (SIZE, 4))})
    with pytest.raises(NotQuantizableError, match="changes nothing in this model"):
        quantize(prepared, observe(prepared, feeds()), static_qdq("u8s8", **{parameter: True}))
