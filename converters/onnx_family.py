"""ONNX files: the model prepared and observed once, each candidate's file once."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from converters.artifact import FLOAT_RULES, Artifact, Made, key_of, write_artifact
from converters.cache import Cache
from converters.calibration import Calibration
from converters.loading import Loaded
from converters.methods import (
    NodeLoss,
    NotQuantizableError,
    Prepared,
    Statistics,
    head_nodes,
    observe,
    overflowing_nodes,
    prepare,
    quantize,
    reference_of,
    sensitivity,
)
from converters.methods.half import LARGEST
from converters.progress import Progress
from converters.recipe import (
    FLOAT,
    Method,
    Rule,
    dynamic,
    float16,
    keep_float,
    static_qdq,
    weight_only,
)
from converters.search import Bounds, Facts, Kind, Move
from converters.tools import tool_versions
from hardware.runtimes.formats import ONNX

_CHECKED_SAMPLES = 4
_SENSITIVITY_SAMPLES = 16
_RECURRENT = {"LSTM", "GRU", "RNN"}


class OnnxFamily:
    """What onnxruntime, OpenVINO and others execute, made from the ONNX model."""

    format = ONNX

    def __init__(
        self,
        loaded: Loaded,
        calibration: Calibration,
        folder: Path,
        cache: Cache,
        progress: Progress,
    ) -> None:
        self._loaded = loaded
        self._calibration = calibration
        self._folder = folder
        self._cache = cache
        self._progress = progress
        self._artifacts: dict[str, Artifact] = {}
        self.float = self.make(FLOAT_RULES)

    def facts(
        self,
        flavours: Sequence[str],
        bounds: Bounds,
    ) -> Facts:
        """What the search has to know of this model, and of the data that judge."""
        operators = self._loaded.model.operators
        return Facts(
            flavours=tuple(flavours),
            recurrent=bool(_RECURRENT & set(operators)),
            convolutions=operators.get("Conv", 0),
            depthwise=self._loaded.model.has_depthwise,
            matrix_share=self._loaded.model.matrix_share,
            has_head=bool(self._head),
            **msgspec.structs.asdict(bounds),
        )

    def rules(self, move: Move) -> tuple[Rule, ...]:
        """A move as rules for this model.

        Raises:
            NotQuantizableError: what has to be known of the model cannot be found out.
        """
        if move.kind is Kind.DYNAMIC:
            return dynamic()
        if move.kind is Kind.FLOAT16:
            kept = self._cache.remember("overflowing", self._origin, list[str], self._overflowing)
            return keep_float(float16(), kept)
        if move.kind is Kind.WEIGHT_ONLY:
            return weight_only("int4" if move.bits == 4 else "int8")  # noqa: PLR2004
        rules = static_qdq(
            move.flavour,
            calibration=move.calibration,
            percentile=move.percentile,
            bias_correction=move.bias_correction,
            equalize=move.equalize,
            layers_only=move.layers,
        )
        if move.head:
            rules = keep_float(rules, self._head)
        if move.sensitive:
            losses = self._losses(rules)
            count = max(1, round(move.sensitive * len(losses)))
            rules = keep_float(rules, [loss.name for loss in losses[:count]])
        return rules

    def make(self, rules: tuple[Rule, ...]) -> Artifact:
        """The artifact that follows from rules.

        Raises:
            NotQuantizableError: the model cannot be quantized by them.
        """
        key = key_of(rules)
        if key not in self._artifacts:
            given = self._loaded.model.precision
            made = self._make(key, rules)
            self._artifacts[key] = write_artifact(made, rules, self._folder, given=given)
        return self._artifacts[key]

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every file that was made, the float model's first."""
        return tuple(self._artifacts.values())

    @cached_property
    def prepared(self) -> Prepared:
        """The model as it is quantized, checked to compute what the float model does."""
        self._progress.step("Folding the model")
        prepared = prepare(self._loaded.model.data, self._calibration.first(_CHECKED_SAMPLES))
        for note in prepared.notes:
            self._progress.note(note)
        return prepared

    @cached_property
    def statistics(self) -> Statistics:
        """What calibration saw."""
        self._progress.step("Calibrating", len(self._calibration))
        return observe(self.prepared, self._calibration.told)

    @cached_property
    def _head(self) -> tuple[str, ...]:
        return self._cache.remember("head", self._origin, tuple[str, ...], self._find_head)

    def _find_head(self) -> tuple[str, ...]:
        try:
            return head_nodes(self.prepared, self.statistics)
        except NotQuantizableError:
            return ()

    @property
    def _origin(self) -> list[Any]:
        """Digests of what everything here is made from."""
        inputs = self._loaded.inputs
        return [inputs.model, inputs.pipeline, inputs.calibration]

    def _overflowing(self) -> list[str]:
        return list(overflowing_nodes(self.prepared, self.statistics, limit=LARGEST))

    def _losses(self, rules: tuple[Rule, ...]) -> tuple[NodeLoss, ...]:
        """Nodes by how much of the signal quantizing them loses, the most first."""

        def find() -> tuple[NodeLoss, ...]:
            self._progress.step("Finding the sensitive nodes")
            quantized = self.make(rules)
            return sensitivity(
                reference_of(self.prepared, self.statistics, rules),
                quantized.path.read_bytes(),
                lambda: self._calibration.first(_SENSITIVITY_SAMPLES),
            )

        parts = [*self._origin, rules]
        return self._cache.remember("losses", parts, tuple[NodeLoss, ...], find)

    def _make(self, key: str, rules: tuple[Rule, ...]) -> Made:
        if key == FLOAT:
            return Made(self._loaded.model.data)
        parts = [*self._origin, rules, tool_versions()]
        known = self._cache.get("artifact", parts)
        if known is not None:
            return msgspec.msgpack.decode(known, type=Made)
        static = any(rule.method is Method.STATIC_QDQ for rule in rules)
        statistics = self.statistics if static else None
        result = quantize(self.prepared, statistics, rules)
        made = Made(result.data, result.nodes)
        self._cache.put("artifact", parts, msgspec.msgpack.encode(made))
        return made
