"""A recipe's rules for `.tflite` files, and what they are for ai-edge-quantizer.

Operators have TensorFlow Lite's names (`CONV_2D`). They have none of their own: a scope is
matched with the name of an operator's first output.

    >>> [rule["operation"] for rule in ai_edge_recipe(dynamic())]
    ['*']
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from converters.recipe import Method, Parameters, Rule

# Layers with weights and what only moves or picks values. Sums, activations written out and
# what joins tensors of different ranges stay in float.
_LAYERS = (
    "AVERAGE_POOL_2D",
    "CONV_2D",
    "CONV_2D_TRANSPOSE",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "MAX_POOL_2D",
    "PAD",
    "RESHAPE",
    "TRANSPOSE",
)
_INT8 = Parameters(activation="int8", weight="int8")
CALIBRATIONS = ("average", "minmax")
_FLOAT_ACTIVATIONS = Parameters(activation="float32", weight="int8")


def static(calibration: str = "minmax", *, layers_only: bool = False) -> tuple[Rule, ...]:
    """Weights and activations in int8, of all operators that LiteRT has kernels for, or of layers.

    Args:
        calibration: how ranges are taken: `minmax`, the extremes, or `average`, the moving
            average of each sample's extremes, which leaves out what is rare.
        layers_only: leave sums, products and other arithmetic between layers in float.
    """
    parameters = msgspec.structs.replace(_INT8, calibration=calibration)
    # Kernels take one scale for a constant operand of BATCH_MATMUL; ai-edge-quantizer 0.10.0
    # would give it one a channel.
    whole = msgspec.structs.replace(parameters, per_channel=False)
    products = Rule(operators=("BATCH_MATMUL",), method=Method.STATIC, parameters=whole)
    if not layers_only:
        return (Rule(method=Method.STATIC, parameters=parameters), products)
    return (
        Rule(method=Method.FLOAT32),
        Rule(operators=_LAYERS, method=Method.STATIC, parameters=parameters),
        products,
    )


def dynamic() -> tuple[Rule, ...]:
    """Weights in int8; activations become int8 as they come."""
    return (Rule(method=Method.DYNAMIC, parameters=_INT8),)


def weight_only() -> tuple[Rule, ...]:
    """Weights in int8, which LiteRT turns to float before it computes."""
    return (Rule(method=Method.WEIGHT_ONLY, parameters=_FLOAT_ACTIVATIONS),)


def float16() -> tuple[Rule, ...]:
    """Weights in half precision, which LiteRT turns to float before it computes."""
    return (Rule(method=Method.FLOAT16),)


def ai_edge_recipe(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """The rules as ai-edge-quantizer takes them, in the same order: the last that matches decides.

    Raises:
        ValueError: a rule asks for what there is not; the text says what there is.
    """
    return [
        {"regex": _regex(rule.scope), "operation": operation, **_settings(rule)}
        for rule in rules
        for operation in _operations(rule.operators)
    ]


def ranges_of(rules: Sequence[Rule]) -> str | None:
    """How the static rules take ranges; None where there are no static rules.

    Raises:
        ValueError: they differ in it: there is one calibration.
    """
    wanted = {r.parameters.calibration for r in rules if r.method is Method.STATIC}
    if len(wanted) > 1:
        raise ValueError(f"ranges are taken in one way, not by {' and '.join(sorted(wanted))}")
    return next(iter(wanted), None)


def _operations(operators: Iterable[str]) -> Iterable[str]:
    return tuple(operators) or ("*",)


def _regex(scope: str) -> str:
    """ai-edge-quantizer searches in the names of all outputs of an operator, joined by `;`."""
    return scope if scope == ".*" else f"^(?:{scope})(?:;|$)"


def _settings(rule: Rule) -> dict[str, Any]:
    if rule.method is Method.FLOAT32:
        return {"algorithm_key": "no_quantize"}
    parameters, uniform = rule.parameters, "min_max_uniform_quantize"
    if rule.method is Method.FLOAT16:
        return {"algorithm_key": "float_casting", "op_config": _config(_weight(16, "FLOAT"))}
    _require("weights", parameters.weight, ("int8",))
    weight = _weight(8, "INT", per_channel=parameters.per_channel)
    if rule.method is Method.WEIGHT_ONLY:
        return {"algorithm_key": uniform, "op_config": _config(weight)}
    if rule.method is Method.DYNAMIC:
        return {"algorithm_key": uniform, "op_config": _config(weight, in_integers=True)}
    if rule.method is Method.STATIC:
        _require("activations", parameters.activation, ("int8",))
        _require("ranges", parameters.calibration, CALIBRATIONS)
        activation = {"activation_tensor_config": _activation()}
        config = _config(weight, in_integers=True) | activation
        return {"algorithm_key": uniform, "op_config": config}
    raise ValueError(f"the method {rule.method} is for ONNX files")


def _config(weight: dict[str, Any], *, in_integers: bool = False) -> dict[str, Any]:
    return {
        "weight_tensor_config": weight,
        "compute_precision": "INTEGER" if in_integers else "FLOAT",
        "explicit_dequantize": not in_integers,
    }


def _weight(bits: int, kind: str, *, per_channel: bool = True) -> dict[str, Any]:
    granularity = "CHANNELWISE" if per_channel else "TENSORWISE"
    return {"num_bits": bits, "symmetric": True, "granularity": granularity, "dtype": kind}


def _activation() -> dict[str, Any]:
    return {"num_bits": 8, "symmetric": False, "granularity": "TENSORWISE", "dtype": "INT"}


def _require(what: str, wanted: str, known: Sequence[str]) -> None:
    if wanted not in known:
        raise ValueError(f"{what} in {wanted} are not known, only {', '.join(known)}")
