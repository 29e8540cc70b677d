"""Files for Qualcomm's HTP: quantized here, compiled by QNN, executed on QNN's simulator of it.

The model is quantized as a whole, its ends included: the HTP is given integers alone, and what
stayed in float would run on the CPU or, where the architecture has them, in half floats that
nobody judged. Activations have 8 bits; 16 where 8 lose too much. Weights are int8; uint8 in a model
with LayerNormalization, of which QNN takes no other.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from cloud_sync.evidence import CompileReport, Placement, Verification
from converters.artifact import Made, write_artifact
from converters.backends.graph import Node
from converters.backends.interface import Job, Offer, Proof, refusal
from converters.backends.placement import placement_gate
from converters.backends.qualcomm.rules import TABLE
from converters.backends.remote import opened_in
from converters.backends.support import Constraint
from converters.backends.whole import (
    Rules,
    placement_without,
    static,
    write_quantized,
)
from converters.toolchains.exchange import ask
from converters.toolchains.store import Installed, require
from hardware.profiles import TargetProfile
from hardware.requirements import Requirements, RuntimeRequirement
from hardware.runtimes.formats import ONNX, QNN_CONTEXT
from hardware.runtimes.qnn import HTP, NAME

TOOLCHAIN = "qnn"
_PACKAGE = "onnxruntime-qnn"
_EXECUTED_ON = "x86-64 htp simulator"
# The simulator computes as the HTP does up to rounding in its last bit.
_TOLERANCE = 0.02
_TOKEN = re.compile(r"_token_\d+$")  # onnxruntime's mark on what it laid out anew
_INSERTED = {"QuantizeLinear", "DequantizeLinear", "Transpose"}
_MOVES = {
    "8-bit activations, extremes": {"activation": "uint8"},
    "8-bit activations, 99.99 %": {"activation": "uint8", "calibration": "percentile"},
    "16-bit activations, extremes": {"activation": "uint16"},
}
_UNSIGNED = {"LayerNormalization"}
_NAMED = 5


class Qualcomm:
    """The backend `qualcomm`."""

    name = "qualcomm"
    toolchains: tuple[str, ...] = (TOOLCHAIN,)
    options: tuple[str, ...] = ()
    formats: tuple[str, ...] = (ONNX,)
    proof = Proof(
        executes="the compiled context itself, on QNN's x86 simulator of the HTP",
        verification=Verification.ARTIFACT_EXECUTED_EMULATED,
    )

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:  # noqa: ARG002 -- all HTPs take the same
        """What QNN takes for an HTP."""
        return TABLE

    def offer(self, job: Job) -> Iterator[Offer]:
        """8-bit activations first, with ranges of two kinds, then 16-bit ones.

        Raises:
            ModelError: QNN takes nothing of it.
            NotQuantizableError: it cannot be quantized.
            ToolchainError: QNN failed.
        """
        if job.decided is not None:
            yield self._compiled(job, "as the recipe says", job.decided.rules)
            return
        weight = weights_for(job.loaded.model.operators)
        for move, parameters in _MOVES.items():
            yield self._compiled(job, move, static(weight=weight, **parameters))

    def _compiled(self, job: Job, move: str, rules: Rules) -> Offer:
        toolchain = require(TOOLCHAIN)
        source, output = job.folder / "quantized.onnx", job.folder / "compiled.onnx"
        nodes = write_quantized(job, rules, source)
        request = {
            "model": str(source.absolute()),
            "output": str(output.absolute()),
            "arch": str(job.target.settings["arch"]),
        }
        log = job.folder / "qnn.log"
        reply = ask(toolchain, request, log=log)
        if "refused" in reply:
            raise refusal(job, "QNN", reply, _suspects(job))
        artifact = write_artifact(Made(output.read_bytes(), len(nodes)), rules, job.folder)
        artifact = msgspec.structs.replace(artifact, format=QNN_CONTEXT)
        placement = placement_of(nodes, reply["left"], artifact.quantization)
        version = _version(toolchain)
        return Offer(
            artifact=artifact,
            runtime=NAME,
            move=move,
            verification=Verification.ARTIFACT_EXECUTED_EMULATED,
            execution=partial(opened_in, toolchain, NAME, artifact.path),
            origin=(artifact.digest, version),
            executed_on=_EXECUTED_ON,
            tolerance=_TOLERANCE,
            requires=_requires(job.target, version),
            gates=(placement_gate(placement, job.request.min_offload),),
            report=CompileReport(
                compiler=f"QNN {reply['sdk']} in {_PACKAGE} {version}",
                settings={"htp_arch": request["arch"]},
                seconds=reply["seconds"],
                placement=placement,
                remarks=("QNN's simulator answered in the HTP's place: its time means nothing.",),
            ),
            documents={log.name: log},
            tools={_PACKAGE: version, "qnn": reply["sdk"]},
        )


def weights_for(operators: Iterable[str]) -> str:
    """The type of the weights in a model of these operators."""
    return "uint8" if _UNSIGNED & set(operators) else "int8"


def placement_of(
    nodes: Sequence[Node], left: Sequence[Sequence[str]], quantization: str
) -> Placement:
    """What QNN left to the CPU, in the float model's own nodes."""
    own = {node.name for node in nodes}
    named = ((_TOKEN.sub("", name), operator) for name, operator in left)
    kept = [(name, op) for name, op in named if name in own or op not in _INSERTED]
    return placement_without(nodes, kept, f"QNN does not take it as {quantization}.")


def _suspects(job: Job) -> str:
    """The nodes that the constraints expect QNN not to take, since it names none itself."""
    told = [f"{node.node} ({node.operator})" for node in job.unsupported[:_NAMED]]
    more = len(job.unsupported) - len(told)
    rest = f" and {more} more" if more else ""
    return f" It was not expected to take {', '.join(told)}{rest}." if told else ""


def _requires(target: TargetProfile, version: str) -> Requirements:
    needs = target.requirements(runtimes=(NAME,))
    runtime = RuntimeRequirement(name=NAME, versions=f">={version}", provider=HTP)
    return msgspec.structs.replace(needs, runtimes=(runtime,))


def _version(toolchain: Installed) -> str:
    pins = dict(pin.split("==") for pin in toolchain.definition.packages)
    return pins[_PACKAGE]
