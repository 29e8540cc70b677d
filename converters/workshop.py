"""Makes artifacts: the float model on each runtime, and each candidate's file once.

Runtimes differ in the files that they execute: a family makes those of one format, with a float
file of its own, which its candidates are compared with. Several targets may share an artifact:
two whose arithmetic asks for the same flavour share that one. An artifact's key follows from
its rules, so whatever asks for the same rules on the same runtime gets the same file, from the
cache where an earlier conversion has made it.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from converters.artifact import FLOAT_RULES, Artifact, in_words, precision_of
from converters.cache import Cache
from converters.calibration import Calibration
from converters.litert.family import LiteRtFamily
from converters.loading import Loaded
from converters.methods import Prepared, Statistics
from converters.onnx_family import OnnxFamily
from converters.progress import Progress
from converters.recipe import Rule
from converters.search import Bounds, Facts, Move
from edgeml.errors import ModelError, ToolchainError, UserError
from hardware.runtimes.formats import ONNX

__all__ = ["FLOAT_RULES", "Artifact", "Family", "Workshop", "in_words", "precision_of"]


class Family(Protocol):
    """Files of one format, made from one float model."""

    @property
    def format(self) -> str:
        """The files' format: `onnx`, `tflite`."""
        ...

    @property
    def float(self) -> Artifact:
        """The float model."""
        ...

    def facts(
        self,
        flavours: Sequence[str],
        bounds: Bounds,
    ) -> Facts:
        """What the search has to know of the model, and of the data that judge."""
        ...

    def rules(self, move: Move) -> tuple[Rule, ...]:
        """A move as rules for this model.

        Raises:
            NotQuantizableError: what has to be known of the model cannot be found out.
        """
        ...

    def make(self, rules: tuple[Rule, ...]) -> Artifact:
        """The artifact that follows from rules.

        Raises:
            NotQuantizableError: the model cannot be quantized by them.
            ToolchainError: what makes it is not installed, or fails.
        """
        ...


class Workshop:
    """Everything that is made from one float model and one set of calibration data."""

    def __init__(self, loaded: Loaded, folder: Path, cache: Cache, progress: Progress) -> None:
        self._loaded = loaded
        self._folder = folder
        self._cache = cache
        self._progress = progress
        self._calibration = Calibration(loaded, progress)

    def begin(self, runtimes: Iterable[str]) -> None:
        """Start what runtimes' files take long for; it goes on while others work."""
        if any(self.family_of(runtime) is not self._own for runtime in runtimes):
            self._litert.begin()

    def settle(self) -> None:
        """Wait until nothing that was started is at work: what is timed is not disturbed."""
        self._litert.settle()

    def close(self) -> None:
        """End what was started."""
        self._litert.close()

    @property
    def float(self) -> Artifact:
        """The float model as it came."""
        return self._own.float

    def float_on(self, runtime: str) -> Artifact:
        """The float model as a runtime takes it.

        Raises:
            ModelError: it cannot be converted for this runtime.
            ToolchainError, UserError: the same, where the runtime was asked for by name.
        """
        try:
            return self.family_of(runtime).float
        except (ToolchainError, UserError) as error:
            if runtime not in self._loaded.plan.optional:
                raise
            raise ModelError(error.what, why=error.why, fix=error.fix) from None

    @property
    def litert(self) -> LiteRtFamily:
        """The float model's `.tflite` files, whatever it came as."""
        return self._litert

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every candidate's file that was made of an ONNX model."""
        return self._onnx.artifacts if self._own.format == ONNX else ()

    @property
    def prepared(self) -> Prepared:
        """An ONNX model as it is quantized; see `OnnxFamily`."""
        return self._onnx.prepared

    @property
    def statistics(self) -> Statistics:
        """What calibration saw of an ONNX model; see `OnnxFamily`."""
        return self._onnx.statistics

    def family_of(self, runtime: str) -> Family:
        """Who makes the files of a runtime."""
        if self._loaded.plan.format_on(runtime) == self._own.format:
            return self._own
        return self._litert

    def make(self, rules: tuple[Rule, ...], runtime: str) -> Artifact:
        """The artifact for a runtime that follows from rules; see `Family.make`."""
        return self.family_of(runtime).make(rules)

    def feeds(self, limit: int) -> Iterator[Sequence[np.ndarray]]:
        """The first calibration samples as the model takes them; empty ones left out."""
        return self._calibration.first(limit)

    @cached_property
    def _own(self) -> Family:
        return self._onnx if self._loaded.model.format == ONNX else self._litert

    @cached_property
    def _onnx(self) -> OnnxFamily:
        return OnnxFamily(
            self._loaded, self._calibration, self._folder, self._cache, self._progress
        )

    @cached_property
    def _litert(self) -> LiteRtFamily:
        return LiteRtFamily(
            self._loaded, self._calibration, self._folder, self._cache, self._progress
        )
