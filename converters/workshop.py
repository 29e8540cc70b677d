"""Makes artifacts: the float model prepared and observed once, each candidate's file once.

Several targets may share an artifact: the float model is the same file everywhere, and two
targets whose arithmetic asks for the same flavour share that one. An artifact's key follows
from its rules, so whatever asks for the same rules gets the same file, from the cache where
an earlier conversion has made it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from converters.cache import Cache
from converters.loading import Loaded
from converters.methods import (
    NodeLoss,
    NotQuantizableError,
    Prepared,
    Statistics,
    head_nodes,
    observe,
    prepare,
    quantize,
    reference_of,
    sensitivity,
)
from converters.progress import Progress, Silent
from converters.recipe import (
    FLOAT,
    FLOAT16,
    INT4,
    INT8,
    Method,
    Precision,
    Rule,
    dynamic,
    float16,
    keep_float,
    static_qdq,
    weight_only,
)
from converters.search import Facts, Kind, Move
from converters.tools import tool_versions
from hardware.runtimes import SessionOptions, open_session

FLOAT_RULES = (Rule(method=Method.FLOAT32),)
_EQUAL_WITHIN = 1e-3  # of the outputs' range: what folding may change
_CHECKED_SAMPLES = 4
_SENSITIVITY_SAMPLES = 16
_RECURRENT = {"LSTM", "GRU", "RNN"}


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a runtime executes; `quantization` is the flavour in words (`u8s8`)."""

    key: str
    path: Path
    digest: str
    size: int
    precision: Precision
    rules: tuple[Rule, ...]
    quantization: str = ""
    nodes: int = 0


class _Made(msgspec.Struct, frozen=True):
    data: bytes
    nodes: int


class Workshop:
    """Everything that is made from one float model and one set of calibration data."""

    def __init__(self, loaded: Loaded, folder: Path, cache: Cache, progress: Progress) -> None:
        self._loaded = loaded
        self._folder = folder
        self._cache = cache
        self._progress = progress
        self._artifacts: dict[str, Artifact] = {}
        self.float = self.make(FLOAT_RULES)

    def facts(
        self, flavours: Sequence[str], *, samples: int, max_drop: float, confidence: float
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
            samples=samples,
            max_drop=max_drop,
            confidence=confidence,
        )

    def rules(self, move: Move) -> tuple[Rule, ...]:
        """A move as rules for this model.

        Raises:
            NotQuantizableError: what has to be known of the model cannot be found out.
        """
        if move.kind is Kind.DYNAMIC:
            return dynamic()
        if move.kind is Kind.FLOAT16:
            return float16()
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
        key = _key(rules)
        if key not in self._artifacts:
            self._artifacts[key] = self._write(key, rules)
        return self._artifacts[key]

    def feeds(self, limit: int | None = None) -> Iterator[Sequence[np.ndarray]]:
        """Calibration samples as the model takes them; empty ones left out."""
        yield from islice(self._feeds(Silent()), limit)

    @cached_property
    def prepared(self) -> Prepared:
        """The model as it is quantized, checked to compute what the float model does."""
        self._progress.step("Folding the model")
        prepared = prepare(self._loaded.model.data)
        path = self._folder / "prepared.onnx"
        path.write_bytes(prepared.proto.SerializeToString(deterministic=True))
        before = open_session("onnxruntime", self.float.path, SessionOptions())
        after = open_session("onnxruntime", path, SessionOptions())
        try:
            for feed in self.feeds(_CHECKED_SAMPLES):
                wanted = [np.array(output) for output in before.run(feed)]
                _refuse_changed(wanted, after.run(feed))
        finally:
            before.close()
            after.close()
            path.unlink()
        return prepared

    @cached_property
    def statistics(self) -> Statistics:
        """What calibration saw."""
        self._progress.step("Calibrating", len(self._loaded.calibration))
        return observe(self.prepared, lambda: self._feeds(self._progress))

    @cached_property
    def _head(self) -> tuple[str, ...]:
        try:
            return head_nodes(self.prepared, self.statistics)
        except NotQuantizableError:
            return ()

    def _losses(self, rules: tuple[Rule, ...]) -> tuple[NodeLoss, ...]:
        """Nodes by how much of the signal quantizing them loses, the most first."""
        self._progress.step("Finding the sensitive nodes")
        quantized = self.make(rules)
        return sensitivity(
            reference_of(self.prepared, self.statistics, rules),
            quantized.path.read_bytes(),
            lambda: self.feeds(_SENSITIVITY_SAMPLES),
        )

    def _write(self, key: str, rules: tuple[Rule, ...]) -> Artifact:
        made = self._make(key, rules)
        path = self._folder / f"{key}.onnx"
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
        )

    def _make(self, key: str, rules: tuple[Rule, ...]) -> _Made:
        if key == FLOAT:
            return _Made(self._loaded.model.data, 0)
        inputs = self._loaded.inputs
        parts = [inputs.model, inputs.pipeline, inputs.calibration, rules, tool_versions()]
        known = self._cache.get("artifact", parts)
        if known is not None:
            return msgspec.msgpack.decode(known, type=_Made)
        static = any(rule.method is Method.STATIC_QDQ for rule in rules)
        statistics = self.statistics if static else None
        result = quantize(self.prepared, statistics, rules)
        made = _Made(result.data, result.nodes)
        self._cache.put("artifact", parts, msgspec.msgpack.encode(made))
        return made

    def _feeds(self, progress: Progress) -> Iterator[Sequence[np.ndarray]]:
        for index, sample in enumerate(self._loaded.calibration):
            tensors = self._loaded.task.prepare(sample)
            progress.advance(index + 1)
            if tensors is not None:
                yield tensors


def in_words(rules: Sequence[Rule]) -> str:
    """Rules as a short text for people: `static-qdq-u8s8-reduced`."""
    quantizing = [rule for rule in rules if rule.method is not Method.FLOAT32]
    if not quantizing:
        return ""
    rule = quantizing[0]
    if rule.method is not Method.STATIC_QDQ:
        return str(rule.method)
    short = {"uint8": "u8", "int8": "s8"}
    parameters = rule.parameters
    name = short.get(parameters.activation, "?") + short.get(parameters.weight, "?")
    words = ["static-qdq", name]
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


def _key(rules: tuple[Rule, ...]) -> str:
    precision = precision_of(rules)
    if precision == FLOAT:
        return FLOAT
    text = msgspec.json.encode(rules, order="deterministic")
    return f"{precision}-{hashlib.sha256(text).hexdigest()[:12]}"


def _refuse_changed(wanted: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> None:
    for want, got in zip(wanted, given, strict=True):
        if want.dtype.kind != "f" or not want.size:
            continue
        scale = float(np.ptp(want)) or float(np.abs(want).max()) or 1.0
        difference = float(np.abs(want - got).max()) / scale
        if not difference <= _EQUAL_WITHIN:
            raise NotQuantizableError(
                "Preparing the model for quantization changed what it computes.",
                why=f"Outputs differ by {100 * difference:.2g} % of their range.",
            )
