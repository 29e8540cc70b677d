"""A recipe's rules for `.tflite` files, as ai-edge-quantizer takes them."""

import msgspec
import pytest

from converters.artifact import in_words, key_of, precision_of
from converters.litert import rules
from converters.recipe import Method, Parameters, Rule


def test_static_rules_are_int8_weights_and_activations_with_a_scale_a_channel() -> None:
    whole, products = rules.ai_edge_recipe(rules.static())
    assert (whole["regex"], whole["operation"]) == (".*", "*")
    assert whole["op_config"]["activation_tensor_config"]["num_bits"] == 8
    assert whole["op_config"]["weight_tensor_config"]["granularity"] == "CHANNELWISE"
    assert products["operation"] == "BATCH_MATMUL"
    assert products["op_config"]["weight_tensor_config"]["granularity"] == "TENSORWISE"


def test_layers_only_leaves_sums_and_joins_in_float() -> None:
    recipe = rules.ai_edge_recipe(rules.static(layers_only=True))
    assert recipe[0] == {"regex": ".*", "operation": "*", "algorithm_key": "no_quantize"}
    quantized = {rule["operation"] for rule in recipe[1:]}
    assert {"CONV_2D", "FULLY_CONNECTED"} <= quantized
    assert quantized.isdisjoint({"ADD", "CONCATENATION", "SOFTMAX"})


def test_a_scope_is_matched_in_full() -> None:
    (rule,) = rules.ai_edge_recipe([Rule(scope="head/.*", method=Method.FLOAT32)])
    assert rule["regex"] == "^(?:head/.*)(?:;|$)"


def test_each_method_is_told_from_the_others_by_how_it_computes() -> None:
    made = {f.__name__: rules.ai_edge_recipe(f()) for f in (
        rules.dynamic, rules.weight_only, rules.float16)}  # fmt: skip
    assert made["dynamic"][0]["op_config"]["compute_precision"] == "INTEGER"
    assert made["weight_only"][0]["op_config"]["compute_precision"] == "FLOAT"
    assert made["float16"][0]["op_config"]["weight_tensor_config"]["dtype"] == "FLOAT"
    assert made["float16"][0]["algorithm_key"] == "float_casting"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(method=Method.STATIC_QDQ), "static-qdq is for ONNX files"),
        (Rule(method=Method.STATIC), "activations in uint8 are not known"),
        (Rule(method=Method.DYNAMIC, parameters=Parameters(weight="int4")), "weights in int4"),
        (
            Rule(
                method=Method.STATIC,
                parameters=Parameters(activation="int8", calibration="entropy"),
            ),
            "ranges in entropy",
        ),
    ],
)
def test_what_litert_has_not_is_refused(rule: Rule, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rules.ai_edge_recipe([rule])


def test_there_is_one_calibration() -> None:
    assert rules.ranges_of(rules.dynamic()) is None
    assert rules.ranges_of(rules.static("average")) == "average"
    with pytest.raises(ValueError, match="average and minmax"):
        rules.ranges_of([*rules.static("average"), *rules.static("minmax")])


def test_rules_are_named_by_what_tells_them_apart() -> None:
    ways = [
        rules.static(), rules.static("average"), rules.static(layers_only=True),
        rules.dynamic(), rules.weight_only(), rules.float16(),
    ]  # fmt: skip
    assert len({key_of(way) for way in ways}) == len(ways)
    assert [precision_of(way) for way in ways] == ["int8"] * 5 + ["float16"]
    assert in_words(rules.static("average")) == "static-s8s8-average"


def test_rules_are_data() -> None:
    made = rules.static("average", layers_only=True)
    assert msgspec.json.decode(msgspec.json.encode(made), type=tuple[Rule, ...]) == made
