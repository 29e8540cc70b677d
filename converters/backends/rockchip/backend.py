"""Files for Rockchip's NPUs, built by rknn-toolkit2 and judged on its simulator.

The toolkit quantizes by itself. Its simulator runs the graph that was just built and loads no
exported file, so that what is judged is the graph (`graph-simulated`), not the file.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cloud_sync.evidence import CompileReport, Estimate, Placement, Verification
from converters.artifact import Made, write_artifact
from converters.backends.graph import Node
from converters.backends.interface import Job, Offer, Proof, refusal
from converters.backends.placement import placement_gate
from converters.backends.rockchip.rules import TABLE
from converters.backends.simulated import Prepared, prepared, simulated
from converters.backends.support import Constraint
from converters.backends.whole import Rules, placement_without
from converters.recipe import Method, Parameters, Rule
from converters.toolchains.service import Service
from converters.toolchains.store import require
from edgeml.errors import ModelError, ToolchainError
from hardware.capabilities import RuntimeInfo
from hardware.profiles import TargetProfile
from hardware.runtimes.bundle import pack
from hardware.runtimes.formats import ONNX, RKNN
from hardware.runtimes.interface import TensorSpec
from hardware.runtimes.rockchip import MODEL, NAME, TENSORS
from hardware.runtimes.rockchip import Tensors as Signature

TOOLCHAIN = "rknn"
_PACKAGE = "rknn-toolkit2"
_EXECUTED_ON = "x86-64 rknn simulator"
_TOLERANCE = 0.05
_ALGORITHMS = {"minmax": "normal", "entropy": "kl_divergence"}
_MOVES = {"int8, extremes": "minmax", "int8, entropy": "entropy"}
_NOT_WORK = {"InputOperator", "OutputOperator", "Reshape", "Transpose"}
_SIMULATED = "The toolkit's simulator ran the graph, not the exported file."
_REPEATABLE = ("rk3562",)  # whose files were the same each time
_NOT_REPEATABLE = (
    "The file holds memory that the toolkit never set, of other numbers in each build: a replay "
    "gives another digest."
)


class Rockchip:
    """The backend `rockchip`."""

    name = "rockchip"
    toolchains: tuple[str, ...] = (TOOLCHAIN,)
    options: tuple[str, ...] = ()
    formats: tuple[str, ...] = (ONNX,)
    proof = Proof(
        executes="the graph that rknn-toolkit2 just built, on its simulator; not the exported file",
        verification=Verification.GRAPH_SIMULATED,
    )

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:  # noqa: ARG002 -- all chips take the same
        """What the toolkit takes."""
        return TABLE

    def offer(self, job: Job) -> Iterator[Offer]:
        """Ranges by the extremes, then by entropy.

        Raises:
            ModelError: the toolkit refuses it.
            ToolchainError: the toolkit failed.
        """
        if job.decided is not None:
            yield _built(job, "as the recipe says", job.decided.rules)
            return
        for move, calibration in _MOVES.items():
            parameters = Parameters(activation="int8", calibration=calibration)
            yield _built(job, move, (Rule(method=Method.STATIC, parameters=parameters),))


def _built(job: Job, move: str, rules: Rules) -> Offer:
    folder, target = job.folder.absolute(), job.target
    calibration = rules[0].parameters.calibration
    if len(rules) != 1 or calibration not in _ALGORITHMS:
        raise ModelError(
            f"The recipe cannot be built for {target.name}.",
            why="rknn-toolkit2 quantizes a model as a whole, by minmax or entropy.",
            fix="Convert without --recipe.",
        )
    given = prepared(job, folder)
    request = {
        "model": str(given.model),
        "samples": str(given.samples),
        "platform": str(target.settings["platform"]),
        "algorithm": _ALGORITHMS[calibration],
        "output": str(folder / "built.rknn"),
    }
    toolchain = require(TOOLCHAIN)
    version = dict(pin.split("==") for pin in toolchain.definition.packages)[_PACKAGE]
    log = folder / f"{TOOLCHAIN}.log"
    with Service(toolchain) as service:
        reply = service.ask(request)
        log.write_bytes(service.log())
    if "refused" in reply:
        raise refusal(job, _PACKAGE, reply)
    content = {
        MODEL: (folder / "built.rknn").read_bytes(),
        TENSORS: msgspec.json.encode(_signature(job, given), order="deterministic"),
    }
    artifact = write_artifact(Made(pack(content), len(given.nodes)), rules, folder, RKNN)
    placement = placement_of(given.nodes, reply["rows"])
    info = RuntimeInfo(name=NAME, version=version, providers=("simulator",))
    return Offer(
        artifact=artifact,
        runtime=NAME,
        move=move,
        verification=Verification.GRAPH_SIMULATED,
        execution=lambda: simulated(toolchain, request, folder, info),
        origin=(
            *(job.loaded.inputs.model, job.loaded.inputs.pipeline, job.loaded.inputs.calibration),
            *(request["platform"], request["algorithm"], version),
        ),
        executed_on=_EXECUTED_ON,
        tolerance=_TOLERANCE,
        gates=(placement_gate(placement, job.request.min_offload),),
        report=CompileReport(
            compiler=f"{_PACKAGE} {version}",
            settings={name: request[name] for name in ("platform", "algorithm")},
            seconds=reply["seconds"],
            placement=placement,
            estimates=(
                Estimate(
                    name="cycles",
                    value=sum(cycles for *_, cycles in reply["rows"]),
                    unit="NPU cycles",
                    source=_PACKAGE,
                ),
            ),
            remarks=_remarks(request["platform"]),
        ),
        documents={log.name: log},
        tools={_PACKAGE: version},
    )


def _remarks(platform: str) -> tuple[str, ...]:
    return (_SIMULATED,) if platform in _REPEATABLE else (_SIMULATED, _NOT_REPEATABLE)


def _signature(job: Job, given: Prepared) -> Signature:
    """What the model takes and gives, which an RKNN file does not tell."""
    model = job.loaded.model
    made = {t.name: t.shape for node in given.nodes for t in node.outputs}
    return Signature(
        inputs=tuple(
            TensorSpec(name=s.name, shape=given.shapes[s.name], dtype=s.dtype) for s in model.inputs
        ),
        outputs=tuple(
            TensorSpec(name=s.name, shape=made.get(s.name) or s.shape, dtype="float32")
            for s in model.outputs
        ),
    )


def placement_of(nodes: Sequence[Node], rows: Sequence[tuple[str, str, bool, int]]) -> Placement:
    """What the toolkit gave to the CPU; what it put in to lay tensors out is not the model's.

    Raises:
        ToolchainError: the toolkit did not say where anything runs: nothing is claimed then.
    """
    if not rows:
        raise ToolchainError(
            "It is not known what the NPU would run.",
            why=f"{_PACKAGE} printed no table of operators when it built the model.",
            fix=f"Install the toolchain anew: edgeml toolchain install {TOOLCHAIN}",
        )
    own = {node.name for node in nodes}
    kept = [
        (name, operator)
        for operator, name, on_npu, _ in rows
        if not on_npu and (name in own or operator not in _NOT_WORK)
    ]
    return placement_without(nodes, kept, "rknn-toolkit2 runs it on the CPU.")
