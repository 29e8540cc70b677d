"""Candidates and their artifacts: what may become a variant, and the files to execute.

Several targets may share an artifact: the float model is the same file everywhere, and two
targets whose profiles ask for the same int8 flavour share that one. An artifact is made,
executed and measured once.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from converters.quantize import NotQuantizableError, quantize
from converters.recipe import (
    FLOAT,
    INT8,
    Method,
    Precision,
    Recipe,
    Rule,
    VariantRecipe,
    static_qdq,
)
from hardware.profiles import TargetProfile
from hardware.runtimes.interface import Session

_EQUAL_WITHIN = 1e-3  # of the outputs' range: what folding may change


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A variant that may be; `decided` is set where a recipe decided already."""

    target: TargetProfile
    precision: Precision
    rules: tuple[Rule, ...]
    decided: VariantRecipe | None = None

    @property
    def key(self) -> str:
        """Names the artifact: candidates with the same key share it."""
        if self.precision == FLOAT:
            return FLOAT
        text = msgspec.json.encode(self.rules, order="deterministic")
        return f"{INT8}-{hashlib.sha256(text).hexdigest()[:12]}"


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a runtime executes; `quantization` is the flavour in words (`u8s8`)."""

    key: str
    path: Path
    digest: str
    size: int
    precision: Precision
    quantization: str = ""


def candidates_of(targets: Sequence[TargetProfile]) -> tuple[Candidate, ...]:
    """For each target the float model and an int8 one, in the flavour of its profile."""
    made = []
    for target in targets:
        made.append(Candidate(target=target, precision=FLOAT, rules=_FLOAT_RULES))
        made.append(Candidate(target=target, precision=INT8, rules=static_qdq(target.int8)))
    return tuple(made)


def candidates_in(recipe: Recipe, targets: Sequence[TargetProfile]) -> tuple[Candidate, ...]:
    """The variants that a recipe decided on."""
    by_name = {target.name: target for target in targets}
    return tuple(
        Candidate(
            target=by_name[variant.target],
            precision=variant.precision,
            rules=variant.rules,
            decided=variant,
        )
        for variant in recipe.variants
    )


def write_artifact(
    candidate: Candidate, folder: Path, model: bytes, prepared: Callable[[], tuple[Any, Any]]
) -> Artifact:
    """Make a candidate's artifact in `folder`.

    Args:
        candidate: what to make.
        folder: where the file goes.
        model: the float model.
        prepared: gives the prepared model and its ranges; called for int8 only.

    Raises:
        NotQuantizableError: the model cannot be quantized by these rules.
    """
    data = model if candidate.precision == FLOAT else quantize(*prepared(), candidate.rules).data
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{candidate.key}.onnx"
    path.write_bytes(data)
    return Artifact(
        key=candidate.key,
        path=path,
        digest=f"sha256:{digest}",
        size=len(data),
        precision=candidate.precision,
        quantization=_in_words(candidate),
    )


def same_outputs(first: Session, second: Session, feed: Sequence[np.ndarray]) -> float:
    """The largest difference of two sessions' outputs, as a share of the outputs' range."""
    worst = 0.0
    expected = [np.array(output) for output in first.run(feed)]
    for want, got in zip(expected, second.run(feed), strict=True):
        if want.dtype.kind == "f" and want.size:
            scale = float(np.ptp(want)) or float(np.abs(want).max()) or 1.0
            worst = max(worst, float(np.abs(want - got).max()) / scale)
    return worst


def refuse_changed(difference: float) -> None:
    """Refuse a preparation that changed what the model computes.

    Raises:
        NotQuantizableError: the outputs differ by more than float arithmetic explains.
    """
    if not difference <= _EQUAL_WITHIN:
        raise NotQuantizableError(
            "Preparing the model for quantization changed what it computes.",
            why=f"Outputs differ by {100 * difference:.2g} % of their range.",
        )


_FLOAT_RULES = (Rule(method=Method.FLOAT32),)


def _in_words(candidate: Candidate) -> str:
    quantizing = [rule for rule in candidate.rules if rule.method is Method.STATIC_QDQ]
    if candidate.precision == FLOAT or not quantizing:
        return ""
    parameters = quantizing[-1].parameters
    short = {"uint8": "u8", "int8": "s8"}
    name = short.get(parameters.activation, "?") + short.get(parameters.weight, "?")
    return f"static-qdq-{name}" + ("-reduced" if parameters.reduced_range else "")
