"""The recipe: how a release's variants were made and what the race decided, as data.

A recipe is saved in the release, shared by all of its variants, and can be replayed: the same
inputs and tools give the same release digest, without racing again, because what a race
measured and decided is written down here as a decision. Rules are ordered; for each node of
the model the last rule that matches its name and operator says what becomes of it.

    >>> rules = static_qdq("u8s8")
    >>> method_of(rules, name="conv1", operator="Conv").method
    <Method.STATIC_QDQ: 'static-qdq'>
    >>> method_of(rules, name="probabilities", operator="Softmax").method
    <Method.FLOAT32: 'float32'>
    >>> method_of(keep_float(rules, ["conv1"]), name="conv1", operator="Conv").method
    <Method.FLOAT32: 'float32'>
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from edgeml.errors import TargetError, UserError

RECIPE_VERSION = 1
FLOAT: Final = "float32"
INT8: Final = "int8"
FLOAT16: Final = "float16"
INT4: Final = "int4"
Precision = Literal["float32", "int8", "float16", "int4"]
_MAX_RECIPE_BYTES = 16 << 20


class Method(StrEnum):
    """What a rule does to the nodes it matches.

    `static-qdq` is of ONNX files, `static` the same idea in `.tflite` files.
    """

    FLOAT32 = "float32"
    STATIC_QDQ = "static-qdq"
    STATIC = "static"
    DYNAMIC = "dynamic"
    FLOAT16 = "float16"
    WEIGHT_ONLY = "weight-only"


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a rule's method works; a field that a method does not use has no effect on it.

    Attributes:
        activation: type of activations: static uint8, int8 or uint16; weight-only float32 or, to
            compute in integers, int8. Dynamic activations are always uint8.
        weight: type of weights: static and dynamic uint8 or int8; weight-only int8 or int4.
        reduced_range: weights in 7 bits, so that CPUs without VNNI do not saturate.
        per_channel: static and dynamic: a scale for each output channel.
        calibration: static: how ranges are taken, minmax, percentile or entropy.
        percentile: static: the share of values, in percent, that a percentile range keeps.
        bias_correction: static: fold the mean error of each output channel into its bias.
        equalize: static: balance the channels of consecutive convolutions beforehand.
        block: weight-only: how many weights share a scale; a power of two from 16 to 256.
    """

    activation: str = "uint8"
    weight: str = "int8"
    reduced_range: bool = False
    per_channel: bool = True
    calibration: str = "minmax"
    percentile: Annotated[float, msgspec.Meta(gt=50, le=100)] = 99.99
    bias_correction: bool = False
    equalize: bool = False
    block: int = 32


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of the nodes whose name matches `scope` (a regular expression, in full).

    `operators` empty means any.
    """

    scope: str = ".*"
    operators: tuple[str, ...] = ()
    method: Method
    parameters: Parameters = Parameters()


class VariantRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One variant of the release; `rank` 0 is the best of its target.

    `accepted` is the reason that was given for deploying it on an undecided accuracy gate,
    `settings` what a compiler was told beside the rules and the target's profile.
    """

    target: str
    runtime: str = "onnxruntime"
    precision: Precision
    rank: Annotated[int, msgspec.Meta(ge=0, le=9999)]
    rules: tuple[Rule, ...] = (Rule(method=Method.FLOAT32),)
    accepted: str = ""
    settings: dict[str, str | int | float | bool] = {}


class Inputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Digests of all that went in; data digests are over the samples, not the file.

    Those of model and pipeline are of what `dims` (free axes that were fixed) and `fused` made
    of the given files.
    """

    model: str
    pipeline: str = ""
    calibration: str
    evaluation: str
    dims: dict[str, int] = {}
    fused: bool = False


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is needed, beside the inputs themselves, to make the same release again."""

    version: int = RECIPE_VERSION
    tools: dict[str, str] = {}
    inputs: Inputs
    variants: tuple[VariantRecipe, ...]

    def encode(self) -> bytes:
        """The recipe as JSON, indented, the same bytes for the same recipe."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic")) + b"\n"


# Softmax, normalisation and reductions stay in float: they cost little and lose most in 8 bits.
_QUANTIZED_OPERATORS = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

# Layers with weights and what only moves, joins or clips values: the arithmetic in between,
# as of activations written out in parts, stays in float.
_LAYERS = (
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Flatten",
    "Gemm",
    "MatMul",
    "MaxPool",
    "Relu",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)

_FLAVOURS = {
    "u8s8": Parameters(activation="uint8"),
    "u8s8-reduced": Parameters(activation="uint8", reduced_range=True),
    "s8s8": Parameters(activation="int8"),
    "u8u8": Parameters(activation="uint8", weight="uint8"),
    "u16s8": Parameters(activation="uint16"),
}
_PRODUCTS = ("Gemm", "LSTM", "MatMul")


def static_qdq(flavour: str, *, layers_only: bool = False, **changes: Any) -> tuple[Rule, ...]:
    """The rules of static quantization in the flavour that a target's profile names.

    Args:
        flavour: `u8s8` (activations uint8, weights int8), `u8s8-reduced`, `s8s8` or `u8u8`.
        layers_only: leave sums, products and other arithmetic between layers in float.
        changes: fields of `Parameters` that are to differ, as `calibration="percentile"`.

    Raises:
        TargetError: there is no such flavour.
    """
    if flavour not in _FLAVOURS:
        raise TargetError(
            f"No int8 flavour {flavour!r}.", why=f"Known are {', '.join(sorted(_FLAVOURS))}."
        )
    parameters = msgspec.structs.replace(_FLAVOURS[flavour], **changes)
    return (
        Rule(method=Method.FLOAT32),
        Rule(
            operators=_LAYERS if layers_only else _QUANTIZED_OPERATORS,
            method=Method.STATIC_QDQ,
            parameters=parameters,
        ),
    )


def dynamic(*operators: str, **changes: Any) -> tuple[Rule, ...]:
    """The rules of dynamic quantization: products of matrices and LSTM, or other `operators`.

    Activations are quantized as they come, so that no calibration is needed.
    """
    return (
        Rule(method=Method.FLOAT32),
        Rule(
            operators=operators or _PRODUCTS,
            method=Method.DYNAMIC,
            parameters=Parameters(**changes),
        ),
    )


def float16() -> tuple[Rule, ...]:
    """The rules of a model in half precision."""
    return (Rule(method=Method.FLOAT16),)


def weight_only(weight: Literal["int8", "int4"], **changes: Any) -> tuple[Rule, ...]:
    """The rules of weight-only quantization: weights in blocks, activations in float."""
    parameters = msgspec.structs.replace(Parameters(activation="float32", weight=weight), **changes)
    return (
        Rule(method=Method.FLOAT32),
        Rule(operators=("Gemm", "MatMul"), method=Method.WEIGHT_ONLY, parameters=parameters),
    )


def keep_float(rules: Sequence[Rule], names: Iterable[str]) -> tuple[Rule, ...]:
    """The rules, followed by one that leaves the nodes of these names in float."""
    scope = "|".join(re.escape(name) for name in sorted(set(names)))
    if not scope:
        return tuple(rules)
    return (*rules, Rule(scope=scope, method=Method.FLOAT32))


def method_of(rules: Sequence[Rule], *, name: str, operator: str) -> Rule:
    """The rule that decides on a node: the last that matches; float32 where none does."""
    for rule in reversed(rules):
        if (not rule.operators or operator in rule.operators) and re.fullmatch(rule.scope, name):
            return rule
    return Rule(method=Method.FLOAT32)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from JSON or TOML (by its suffix).

    Raises:
        UserError: there is no such file, or it is not a recipe; the sentence says where.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"No recipe {path}.", why=f"{error.strerror}.") from None
    return parse_recipe(data, name=str(path), toml=path.suffix == ".toml")


def parse_recipe(data: bytes, *, name: str = "recipe", toml: bool = False) -> Recipe:
    """Parse and check a recipe.

    Raises:
        UserError: the data are no recipe of this version; the sentence says what is wrong.
    """
    decode = msgspec.toml.decode if toml else msgspec.json.decode
    try:
        if len(data) > _MAX_RECIPE_BYTES:
            raise ValueError(f"it has {len(data)} bytes, the limit is {_MAX_RECIPE_BYTES}")
        recipe = decode(data, type=Recipe)
        if recipe.version != RECIPE_VERSION:
            raise ValueError(f"it has version {recipe.version}, known is {RECIPE_VERSION}")
        for rule in (rule for variant in recipe.variants for rule in variant.rules):
            re.compile(rule.scope)
    except re.error as error:
        raise UserError(
            f"The recipe {name} cannot be used.", why=f"A scope is no regular expression: {error}."
        ) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UserError(f"The recipe {name} cannot be used.", why=f"{error}.") from None
    if not recipe.variants:
        raise UserError(f"The recipe {name} cannot be used.", why="It names no variant.")
    named = [(v.target, v.runtime, v.precision) for v in recipe.variants]
    if len(set(named)) != len(named):
        raise UserError(f"The recipe {name} cannot be used.", why="It names a variant twice.")
    return recipe
