"""Files for Espressif's ESP-DL, quantized by ESP-PPQ and judged on its quantized graph.

Scales are powers of two, of weights as of activations. What answers is the graph with its integers
simulated in floats (`graph-simulated`); only the chip loads the file.
"""

from collections.abc import Iterator, Mapping, Sequence

from cloud_sync.evidence import CompileReport, Placement, Verification
from converters.artifact import Made, write_artifact
from converters.backends.esp_dl.rules import TABLE
from converters.backends.graph import Node
from converters.backends.interface import Job, Offer, Proof, refusal
from converters.backends.placement import placement_gate
from converters.backends.simulated import prepared, simulated
from converters.backends.support import Constraint
from converters.backends.whole import Rules, placement_without
from converters.recipe import Method, Parameters, Rule
from converters.toolchains.service import Service
from converters.toolchains.store import require
from edgeml.errors import ModelError
from hardware.capabilities import RuntimeInfo
from hardware.profiles import TargetProfile
from hardware.runtimes.espdl import NAME
from hardware.runtimes.formats import ESPDL, ONNX

TOOLCHAIN = "esp-ppq"
_EXECUTED_ON = "esp-ppq quantized graph"
_TOLERANCE = 0.05  # the chip sums integers and shifts; the simulation rounds once, in floats
_BITS = {"int8": "w8a8", "int16": "w8a16"}
_ALGORITHMS = {"minmax": "minmax", "entropy": "kl", "percentile": "percentile"}
_MOVES = {
    "8-bit activations, entropy": ("int8", "entropy"),
    "8-bit activations, extremes": ("int8", "minmax"),
    "16-bit activations, extremes": ("int16", "minmax"),
}
_MOVING = {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_REMARK = (
    "ESP-PPQ ran the quantized graph with its integers simulated in floats, not the exported file. "
    "A microcontroller runs no agent: the firmware loads the file with ESP-DL, and its own test is "
    "what decides."
)


class EspDl:
    """The backend `esp-dl`."""

    name = "esp-dl"
    toolchains: tuple[str, ...] = (TOOLCHAIN,)
    options: tuple[str, ...] = ()
    formats: tuple[str, ...] = (ONNX,)
    proof = Proof(
        executes="the graph that ESP-PPQ quantized, its integers simulated in floats; not the file",
        verification=Verification.GRAPH_SIMULATED,
    )

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:  # noqa: ARG002 -- both chips run the same
        """What ESP-DL runs."""
        return TABLE

    def offer(self, job: Job) -> Iterator[Offer]:
        """8-bit activations by entropy, as ESP-PPQ does, then by extremes, then 16-bit ones.

        Raises:
            ModelError: ESP-PPQ refuses it.
            ToolchainError: the toolchain failed.
        """
        if job.decided is not None:
            yield _quantized(job, "as the recipe says", job.decided.rules)
            return
        for move, (activation, calibration) in _MOVES.items():
            parameters = Parameters(activation=activation, calibration=calibration)
            yield _quantized(job, move, (Rule(method=Method.STATIC, parameters=parameters),))


def _quantized(job: Job, move: str, rules: Rules) -> Offer:
    folder = job.folder.absolute()
    told = _told(job, rules)
    given = prepared(job, folder)
    made, description = folder / "quantized.espdl", folder / "espdl.txt"
    request = {
        "model": str(given.model),
        "samples": str(given.samples),
        "output": str(made),
        "description": str(description),
        **told,
    }
    toolchain = require(TOOLCHAIN)
    version = dict(pin.split("==") for pin in toolchain.definition.packages)[TOOLCHAIN]
    log = folder / f"{TOOLCHAIN}.log"
    with Service(toolchain) as service:
        reply = service.ask(request)
        log.write_bytes(service.log())
    if "refused" in reply:
        raise refusal(job, "ESP-PPQ", reply)
    artifact = write_artifact(Made(made.read_bytes(), len(given.nodes)), rules, folder, ESPDL)
    placement = placement_of(given.nodes, reply["rows"])
    info = RuntimeInfo(name=NAME, version=f"esp-ppq-{version}", providers=("simulator",))
    inputs = job.loaded.inputs
    return Offer(
        artifact=artifact,
        runtime=NAME,
        move=move,
        verification=Verification.GRAPH_SIMULATED,
        execution=lambda: simulated(toolchain, request, folder, info),
        origin=(artifact.digest, *told.values(), inputs.pipeline, toolchain.identity),
        executed_on=_EXECUTED_ON,
        tolerance=_TOLERANCE,
        gates=(placement_gate(placement, job.request.min_offload),),
        report=CompileReport(
            compiler=f"ESP-PPQ {version}",
            settings=told,
            seconds=reply["seconds"],
            placement=placement,
            remarks=(_REMARK,),
        ),
        documents={"espdl.txt": description, log.name: log},
        tools={TOOLCHAIN: version},
    )


def _told(job: Job, rules: Rules) -> dict[str, str]:
    """What ESP-PPQ is told.

    Raises:
        ModelError: the recipe's rules are none that it has.
    """
    parameters = rules[0].parameters
    if (
        len(rules) != 1
        or parameters.activation not in _BITS
        or parameters.calibration not in _ALGORITHMS
    ):
        raise ModelError(
            f"The recipe cannot be made for {job.target.name}.",
            why=f"ESP-PPQ quantizes a model as a whole: activations {' or '.join(_BITS)}, "
            f"ranges by {' or '.join(_ALGORITHMS)}.",
            fix="Convert without --recipe.",
        )
    return {
        "chip": str(job.target.settings["chip"]),
        "bits": _BITS[parameters.activation],
        "algorithm": _ALGORITHMS[parameters.calibration],
    }


def placement_of(nodes: Sequence[Node], rows: Sequence[tuple[str, str, bool]]) -> Placement:
    """What ESP-PPQ did not quantize: the chip computes that in floats, without its vectors."""
    kept = [
        (name, operator)
        for name, operator, in_integers in rows
        if not in_integers and operator not in _MOVING
    ]
    return placement_without(nodes, kept, "ESP-PPQ leaves it in float32.")
