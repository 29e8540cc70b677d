"""What LiteRT executes: the float `.tflite` model, and files of fewer bits made from it.

Where the model is an ONNX file, the float one is made by the toolchain onnx2tf, for the shapes
that the calibration samples have, and must give the ONNX model's outputs on some of them. The
others are made from it by the toolchain ai-edge-quantizer. All keep the float model's inputs
and outputs, so that the same pipeline serves them.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from converters.artifact import FLOAT_RULES, Artifact, Made, key_of, write_artifact
from converters.axes import fixed_shapes
from converters.cache import Cache
from converters.calibration import Calibration
from converters.litert import rules as litert_rules
from converters.litert.model import load_tflite
from converters.loading import Loaded
from converters.methods import NotQuantizableError
from converters.model import FloatModel
from converters.progress import Progress
from converters.recipe import FLOAT, Rule
from converters.search import Bounds, Facts, Kind, Move
from converters.toolchains.service import Service
from converters.toolchains.store import Installed, require
from edgeml.errors import EdgemlError, ModelError, ToolchainError
from hardware.runtimes.formats import TFLITE

CONVERTER = "onnx2tf"
QUANTIZER = "ai-edge-quantizer"
_CHECKED_SAMPLES = 4
_RECURRENT = ("GRU", "LSTM", "RNN", "WHILE")


class LiteRtFamily:
    """The float model's `.tflite` file, and what is made from it."""

    format = TFLITE

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
        self._folder = folder.absolute()  # toolchains run elsewhere
        self._cache = cache
        self._progress = progress
        self._artifacts: dict[str, Artifact] = {}
        self.logs: dict[str, bytes] = {}  # of the toolchains, by name, as far as they are known
        self._converter: Service | None = None
        self._quantizer: Service | None = None

    def begin(self) -> None:
        """Start what takes long and will be asked for: others work meanwhile.

        What goes wrong is told where it is asked for.
        """
        if self._loaded.model.format != TFLITE and self._converter is None:
            with suppress(EdgemlError):
                toolchain = require(CONVERTER)
                if self._cache.get("tflite", self._origin(toolchain)) is None:
                    self._converter = self._converting(toolchain)

    def settle(self) -> None:
        """Wait until nothing that was started is at work."""
        if self._quantizer is not None:
            self._quantizer.settle()

    def close(self) -> None:
        """End what was started."""
        for service in (self._converter, self._quantizer):
            if service is not None:
                service.close()
        self._converter = self._quantizer = None

    @cached_property
    def float(self) -> Artifact:
        """The float model as a `.tflite` file.

        Raises:
            ModelError: onnx2tf cannot convert it; the sentence says why.
            ToolchainError: onnx2tf is not installed, or fails.
            UserError: samples differ in an axis that the model leaves free.
        """
        model = self._loaded.model
        made = Made(model.data) if model.format == TFLITE else self._converted()
        return write_artifact(made, FLOAT_RULES, self._folder, TFLITE)

    def facts(
        self,
        flavours: Sequence[str],  # noqa: ARG002 -- LiteRT's integers are the same on all targets
        bounds: Bounds,
    ) -> Facts:
        """What the search has to know of this model, and of the data that judge."""
        model = self._model
        return Facts(
            family=TFLITE,
            flavours=("s8s8",),
            recurrent=any(name.endswith(_RECURRENT) for name in model.operators),
            convolutions=model.operators.get("CONV_2D", 0)
            + model.operators.get("DEPTHWISE_CONV_2D", 0),
            depthwise=model.has_depthwise,
            matrix_share=model.matrix_share,
            **msgspec.structs.asdict(bounds),
        )

    def rules(self, move: Move) -> tuple[Rule, ...]:
        """A move as rules for this model."""
        match move.kind:
            case Kind.DYNAMIC:
                return litert_rules.dynamic()
            case Kind.FLOAT16:
                return litert_rules.float16()
            case Kind.WEIGHT_ONLY:
                return litert_rules.weight_only()
            case _:
                return litert_rules.static(move.calibration, layers_only=move.layers)

    def make(self, rules: tuple[Rule, ...]) -> Artifact:
        """The artifact that follows from rules.

        Raises:
            NotQuantizableError: the model cannot be quantized by them.
            ToolchainError: ai-edge-quantizer is not installed, or fails.
        """
        key = key_of(rules)
        if key == FLOAT:
            return self.float
        if key not in self._artifacts:
            made = self._quantized(rules)
            self._artifacts[key] = write_artifact(made, rules, self._folder, TFLITE)
        return self._artifacts[key]

    @cached_property
    def _model(self) -> FloatModel:
        model = self._loaded.model
        return model if model.format == TFLITE else load_tflite(self.float.path)

    def _converted(self) -> Made:
        """The ONNX model as a `.tflite` file."""
        toolchain = require(CONVERTER)
        known = self._cache.get("tflite", self._origin(toolchain))
        if known is not None:
            self.logs[CONVERTER] = self._cache.get("log", self._origin(toolchain)) or b""
            return Made(known)
        self._progress.step("Converting the model for LiteRT")
        self._converter = self._converter or self._converting(toolchain)
        with self._converter as converter:
            reply = converter.reply()
            self.logs[CONVERTER] = converter.log()
        self._converter = None
        if reason := reply.get("refused"):
            raise ModelError(
                f"{self._loaded.model.path} cannot be converted for LiteRT.",
                why=f"{CONVERTER}: {reason} {reply['log']}",
                fix="Export a .tflite file with your framework and convert that, or leave out "
                "--runtime litert.",
            )
        made = Made(self._files["tflite"].read_bytes())
        for path in self._files.values():
            path.unlink()
        self._cache.put("tflite", self._origin(toolchain), made.data)
        self._cache.put("log", self._origin(toolchain), self.logs[CONVERTER])
        with suppress(ToolchainError):  # whoever asks for its files is told
            self._started()
        return made

    def _origin(self, converter: Installed) -> list[str]:
        """What the converted model follows from."""
        inputs = self._loaded.inputs
        return [inputs.model, inputs.pipeline, inputs.calibration, converter.identity]

    @property
    def _files(self) -> dict[str, Path]:
        """What the converter reads and writes."""
        return {s: self._folder / f"to-convert.{s}" for s in ("onnx", "npz", "tflite")}

    def _converting(self, toolchain: Installed) -> Service:
        """The converter at work.

        Raises:
            ModelError, UserError: samples do not say what it has to know.
            ToolchainError: it does not start.
        """
        model, files = self._loaded.model, self._files
        shapes = fixed_shapes(model.inputs, self._calibration.told(), "the runtime litert")
        feeds = list(self._calibration.first(_CHECKED_SAMPLES))
        if not feeds:
            raise ModelError("There is nothing to convert with.", why="No sample was inferred.")
        files["onnx"].write_bytes(model.data)
        np.savez(files["npz"], *(np.stack(tensors) for tensors in zip(*feeds, strict=True)))
        service = Service(toolchain)
        service.begin(
            {
                "model": str(files["onnx"]),
                "inputs": list(shapes),
                "samples": str(files["npz"]),
                "output": str(files["tflite"]),
            }
        )
        return service

    def _started(self) -> Service:
        """The quantizer, for all files that it makes."""
        if self._quantizer is None:
            self._quantizer = Service(require(QUANTIZER))
            self._quantizer.begin({})
        return self._quantizer

    def _quantized(self, rules: tuple[Rule, ...]) -> Made:
        toolchain, inputs = require(QUANTIZER), self._loaded.inputs
        try:
            recipe, ranges = litert_rules.ai_edge_recipe(rules), litert_rules.ranges_of(rules)
        except ValueError as error:
            raise NotQuantizableError(
                "The recipe asks for what LiteRT has not.", why=f"{error}."
            ) from None
        parts = [self.float.digest, inputs.pipeline, inputs.calibration, rules, toolchain.identity]
        known = self._cache.get("artifact", parts)
        if known is not None:
            self.logs[QUANTIZER] = self._cache.get("log", parts) or b""
            return msgspec.msgpack.decode(known, type=Made)
        output = self._folder / "quantized.tflite"
        request = {"model": str(self.float.path), "output": str(output), "recipe": recipe}
        if ranges is not None:
            request |= {"ranges": ranges, "calibration": self._samples}
        service = self._started()
        reply = service.ask(request)
        self.logs[QUANTIZER] = service.log()
        if reason := reply.get("refused"):
            raise NotQuantizableError(
                "The model cannot be quantized.", why=f"{QUANTIZER}: {reason} {reply['log']}"
            )
        if not reply["quantized_weights"]:
            raise NotQuantizableError(
                "The recipe quantizes nothing.", why="No weight of the model has fewer bits."
            )
        made = Made(output.read_bytes(), reply["quantized_weights"])
        output.unlink()
        self._cache.put("artifact", parts, msgspec.msgpack.encode(made))
        self._cache.put("log", parts, self.logs[QUANTIZER])
        return made

    @cached_property
    def _samples(self) -> list[dict[str, Any]]:
        """Calibration samples in files that are read a row at a time: path, type and shape."""
        self._progress.step("Calibrating", len(self._calibration))
        specs = self._model.inputs
        paths = [self._folder / f"calibration-{index}" for index in range(len(specs))]
        tensors: list[np.ndarray] = []
        count = 0
        for path in paths:
            path.unlink(missing_ok=True)
        for feed in self._calibration.told():
            count += 1
            tensors = [np.asarray(tensor) for tensor in feed]
            for path, tensor in zip(paths, tensors, strict=True):
                with path.open("ab") as file:
                    file.write(np.ascontiguousarray(tensor).tobytes())
        if not count:
            raise ModelError("There is nothing to calibrate with.", why="No sample was inferred.")
        return [
            {"file": str(path), "dtype": tensor.dtype.str, "shape": [count, *tensor.shape]}
            for path, tensor in zip(paths, tensors, strict=True)
        ]
