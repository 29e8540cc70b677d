"""Artifacts: the files that runtimes execute, each named by the rules that it follows from."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from converters.recipe import FLOAT, FLOAT16, INT4, INT8, Method, Precision, Rule
from hardware.runtimes.formats import ONNX

FLOAT_RULES = (Rule(method=Method.FLOAT32),)


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a runtime executes; `quantization` is the flavour in words (`u8s8`).

    `format` is the file's (`onnx`, `tflite`) and its path's suffix. `nodes` is how many of the
    model's weights were quantized. `precision` is that of the rules; `given` that of the weights
    of the model as it came.
    """

    key: str
    path: Path
    digest: str
    size: int
    precision: Precision
    rules: tuple[Rule, ...]
    quantization: str = ""
    nodes: int = 0
    format: str = ONNX
    given: Precision = FLOAT

    @property
    def weights(self) -> Precision:
        """What the file's weights are in."""
        return self.given if self.precision == FLOAT else self.precision


class Made(msgspec.Struct, frozen=True):
    """A file's bytes, and how many nodes or weights were quantized in it."""

    data: bytes
    nodes: int = 0


def write_artifact(
    made: Made,
    rules: tuple[Rule, ...],
    folder: Path,
    file_format: str = ONNX,
    *,
    given: Precision = FLOAT,
) -> Artifact:
    """Write what was made by rules into a folder, under the name that they have."""
    key = key_of(rules)
    path = folder / f"{key}.{file_format}"
    path.write_bytes(made.data)
    return Artifact(
        key=key,
        path=path,
        digest=f"sha256:{hashlib.sha256(made.data).hexdigest()}",
        size=len(made.data),
        precision=precision_of(rules),
        rules=rules,
        quantization=in_words(rules),
        nodes=made.nodes,
        format=file_format,
        given=given,
    )


def key_of(rules: tuple[Rule, ...]) -> str:
    """The name of what follows from rules: `float32`, or the precision and a digest."""
    precision = precision_of(rules)
    if precision == FLOAT:
        return FLOAT
    text = msgspec.json.encode(rules, order="deterministic")
    return f"{precision}-{hashlib.sha256(text).hexdigest()[:12]}"


def in_words(rules: Sequence[Rule]) -> str:
    """Rules as a short text for people: `static-qdq-u8s8-reduced`."""
    quantizing = [rule for rule in rules if rule.method is not Method.FLOAT32]
    if not quantizing:
        return ""
    rule = quantizing[0]
    if rule.method not in {Method.STATIC_QDQ, Method.STATIC}:
        return str(rule.method)
    short = {"uint8": "u8", "int8": "s8", "uint16": "u16"}
    parameters = rule.parameters
    name = short.get(parameters.activation, "?") + short.get(parameters.weight, "?")
    words = [str(rule.method), name]
    words += ["reduced"] if parameters.reduced_range else []
    words += [parameters.calibration] if parameters.calibration != "minmax" else []
    words += ["mixed"] if rules[-1].method is Method.FLOAT32 else []
    return "-".join(words)


def precision_of(rules: Sequence[Rule]) -> Precision:
    """The fewest bits that rules give to weights."""
    methods = {rule.method: rule for rule in rules if rule.method is not Method.FLOAT32}
    if not methods:
        return FLOAT
    if Method.FLOAT16 in methods:
        return FLOAT16
    weights = {rule.parameters.weight for rule in methods.values()}
    return INT4 if "int4" in weights else INT8
