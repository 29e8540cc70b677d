"""Files for FPGAs: an integer model, gateware that computes it, and the proof that it does.

What the gateware computes is defined by the integer model's reference, in int64. The converter
judges the reference on all evaluation samples; the gateware's Verilog runs in Verilator on the
golden samples and must give the same bits, which is the gate `rtl`. Nothing is run on silicon.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

import msgspec
import numpy as np

from cloud_sync.evidence import Alternative, CompileReport, Placement, Verdict, Verification
from converters.artifact import Artifact
from converters.axes import fixed_shapes
from converters.backends.graph import nodes_of
from converters.backends.interface import Execution, Job, Offer, Proof, Tensors
from converters.backends.support import Constraint
from converters.fpga import built
from converters.fpga.candidates import DATAFLOW, ENGINE, Candidate
from converters.fpga.flow import CHIP, FLASH
from converters.fpga.integer.graph import IntegerGraph
from converters.fpga.integer.operators import supported
from converters.fpga.integer.quantize import Widths
from converters.fpga.integer.reading import read
from converters.fpga.integer.reference import decode_output, encode_input, run
from converters.fpga.integers import Integers, in_bits
from converters.fpga.settings import (
    HLS4ML,
    OPTIONS,
    UNROLLER,
    Settings,
    require_tools,
    settings_of,
)
from converters.fpga.simulate import require_programs
from converters.fpga.synthesis import TOOLCHAIN as SYNTHESIS
from converters.golden import golden_indices
from converters.methods.refusal import NotQuantizableError
from converters.model import is_quantized
from converters.recipe import Method, Parameters, Rule
from edgeml.errors import ModelError, TargetError
from hardware.capabilities import RuntimeInfo
from hardware.profiles import TargetProfile
from hardware.requirements import Requirements, RuntimeRequirement
from hardware.runtimes.formats import ONNX

NAME = "fpga"
RUNTIME = "fpga"
RULES = (Rule(method=Method.STATIC, parameters=Parameters(activation="int8", weight="int8")),)
_CALIBRATION = 512  # samples at most, of which ranges are taken
_SOFTMAX = 1e-6  # the host's exponentials, which may differ in a last bit
_CAME_QUANTIZED = "The model came quantized: float is what onnxruntime makes of it as it came."
_SAVES_NOTHING = "An engine stores weights in bytes: bits=search saves nothing there, but in logic."
_NOT_ON_SILICON = "The gateware ran in Verilator, never on an FPGA: its clock is the tools' word."


class Fpga:
    """The backend `fpga`."""

    name = NAME
    toolchains: tuple[str, ...] = ()
    optional_toolchains: tuple[str, ...] = (SYNTHESIS, UNROLLER)
    formats: tuple[str, ...] = (ONNX,)
    options: Mapping[str, str] = OPTIONS
    proof = Proof(
        executes="the gateware's Verilog in Verilator, on the golden samples",
        verification=Verification.RTL_SIMULATED,
    )
    takes_quantized = True

    def require(self) -> None:
        """Check that gateware can be simulated here.

        Raises:
            ToolchainError: Verilator or a C++ compiler is missing.
        """
        require_programs("verilator", "g++")

    def check(self, target: TargetProfile, options: Mapping[str, str]) -> None:
        """Check options, and the toolchains that they need.

        Raises:
            ToolchainError: one is missing.
            UserError: an option has a value that it cannot have.
        """
        require_tools(settings_of(target, options))

    def foresee(
        self, target: TargetProfile, options: Mapping[str, str], model: bytes, sample: np.ndarray
    ) -> None:
        """Check that a model can be computed and fits, by its shapes, before it is evaluated.

        Raises:
            ModelError: an operator cannot be computed; the error names it.
            TargetError: not even the nearest way to build it fits; the error has the estimate.
        """
        network, settings = read(model, sample.shape), settings_of(target, options)
        if settings["architecture"] == HLS4ML:
            return
        with suppress(NotQuantizableError):  # of one sample; calibration has the last word
            weighed = Integers(network, sample[None]).sketched(settings)
            if not weighed.order:
                raise weighed.refusal()

    def weigh(
        self, target: TargetProfile, options: Mapping[str, str], model: bytes
    ) -> tuple[Alternative, ...]:
        """All ways to build a model for a target, by its shapes alone; none where nothing is known.

        Raises:
            ModelError: it cannot be computed; the error names the operator.
            UserError: an option has a value that it cannot have.
        """
        if target.settings.get("architecture") == HLS4ML:
            return ()
        network = read(model)
        sample = np.random.default_rng(0).normal(size=(1, *network.input_shape))
        settings = settings_of(target, options)
        weighed = Integers(network, sample.astype(np.float32)).sketched(settings)
        return weighed.told(next(iter(weighed.order), None))

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:  # noqa: ARG002 -- all FPGAs run the same
        """What gateware computes, or what costs it nothing."""
        return dict.fromkeys(supported(), ())

    def offer(self, job: Job) -> Iterator[Offer]:
        """The most faithful integer models first; for unrolled logic the narrowest first.

        Raises:
            ModelError: an operator cannot be computed; the error names it.
            TargetError: the network is too large for the target; the error has the estimate.
            ToolchainError: a tool is missing or failed.
            UserError: an option has a value that it cannot have.
        """
        decided = job.decided.settings if job.decided else None
        settings = settings_of(job.target, job.request.options, decided)
        require_tools(settings)
        model = _calibrated(job)
        if decided is not None:
            yield _made(job, model, settings, _widths(decided))
        elif settings["architecture"] == HLS4ML:
            for widths in model.choices(settings):
                yield _made(job, model, settings, widths)
        else:
            yield from _searched(job, model, settings)


def _calibrated(job: Job) -> Integers:
    """The model as integers, by calibration samples."""
    job.progress.step(f"Calibrating for {job.target.name}")
    with job.exclusively:
        feeds = job.workshop.feeds(_CALIBRATION)
        samples = np.stack([np.asarray(feed[0], np.float32)[0] for feed in feeds])
    return Integers(read(job.loaded.model.data, samples.shape[1:]), samples)


def _golden(job: Job) -> np.ndarray:
    """The golden set's samples, as the model takes them."""
    loaded, found = job.loaded, job.reference.found
    with job.exclusively:
        wanted = golden_indices(loaded.task, loaded.evaluation, found)
        chosen = [s for index, s in enumerate(loaded.evaluation) if index in wanted]
        feeds = [loaded.task.prepare(sample) for sample in chosen]
    return np.stack([np.asarray(feed[0], np.float32)[0] for feed in feeds if feed])


@dataclass(frozen=True, eq=False)
class Reference:
    """The integer model as what executes: bit for bit what the gateware gives."""

    graph: IntegerGraph

    @property
    def info(self) -> RuntimeInfo:
        """The runtime of the device; its version is that of the gateware's arithmetic."""
        return RuntimeInfo(name=RUNTIME, version=built.VERSION)

    def run_each(self, feeds: Sequence[Tensors]) -> Sequence[Tensors]:
        """Outputs for each feed, as the float model shapes them."""
        samples = np.stack([np.asarray(feed[0], np.float32)[0] for feed in feeds])
        made = decode_output(self.graph, run(self.graph, encode_input(self.graph, samples)))
        return [[output[None]] for output in made]


def _searched(job: Job, model: Integers, settings: Settings) -> Iterator[Offer]:
    """What fits, the most promising first; what then cannot be made gives way to the next.

    Raises:
        ModelError, TargetError: nothing could be made; the error has the estimates.
    """
    weighed = model.weighed(settings)
    is_logic = settings["architecture"] == DATAFLOW  # asked for by name: the smallest first
    order = [c for c in weighed.candidates if not c.lacking] if is_logic else weighed.order
    if not order:
        raise weighed.refusal()
    is_judged = False  # all engines compute the same
    for candidate in order:
        is_engine = candidate.architecture == ENGINE
        if is_engine and is_judged:
            continue
        settled = _settled(settings, candidate)
        for widths in weighed.widths(candidate) or model.choices(settled):
            try:
                made = _made(job, model, settled, widths, weighed.told(candidate))
            except (ModelError, TargetError) as error:
                if candidate is order[-1]:
                    raise
                job.progress.note(f"{job.target.name} without {candidate.name}: {error}")
                break
            yield made
            if _is_too_large(made):
                break
        else:
            is_judged = is_judged or is_engine


def _settled(settings: Settings, candidate: Candidate) -> Settings:
    """Settings without a choice."""
    if candidate.architecture == DATAFLOW:
        return {**settings, "architecture": DATAFLOW}
    place = FLASH if candidate.is_far else CHIP
    return {**settings, "architecture": ENGINE, "lanes": candidate.lanes, "weights": place}


def _is_too_large(made: Offer) -> bool:
    """Whether tools counted more than the estimate did, and than there is."""
    return any(g.name == "resources" and g.result is Verdict.FAIL for g in made.gates)


def _made(
    job: Job,
    model: Integers,
    settings: Settings,
    widths: Widths,
    alternatives: tuple[Alternative, ...] = (),
) -> Offer:
    """An integer model, built as far as it was asked for."""
    graph = model.graph(widths)
    target, progress = job.target, job.progress
    codes = encode_input(graph, _golden(job))
    progress.step(f"Building gateware for {target.name}")
    implementation = built.build(
        graph, settings, job.folder, codes, say=progress.step, keeper=job.cache.lasting
    )
    placement = _placement(job)
    path = implementation.path
    data = path.read_bytes()
    kept = {**settings, **_as_settings(widths)}
    artifact = Artifact(
        key=f"int8-{hashlib.sha256(data).hexdigest()[:12]}",
        path=path,
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
        size=len(data),
        precision="int8",
        rules=RULES,
        quantization=_in_words(widths),
        nodes=len(model.network.linears),
        format=implementation.path.suffix.removeprefix("."),
    )
    return Offer(
        artifact=artifact,
        runtime=implementation.runtime,
        move=f"{settings['architecture']}, {_in_words(widths)}",
        verification=implementation.verification,
        execution=_opening(graph),
        origin=(graph.digest, built.VERSION),
        executed_on=implementation.executed_on,
        tolerance=_SOFTMAX if graph.host.softmax else 0.0,
        same_everywhere=True,
        settings=kept,
        requires=_requires(target, settings, implementation.runtime),
        gates=implementation.gates,
        report=CompileReport(
            compiler=f"edgeml {settings['architecture']}",
            settings={name: str(value) for name, value in kept.items()},
            seconds=implementation.seconds,
            placement=placement,
            estimates=implementation.estimates,
            remarks=(*_remarks(job, settings, implementation), *implementation.remarks),
            alternatives=alternatives,
        ),
        documents=implementation.documents,
        tools=implementation.tools,
    )


def _opening(graph: IntegerGraph) -> Callable[[], AbstractContextManager[Execution]]:
    return lambda: nullcontext(Reference(graph))


def _as_settings(widths: Widths) -> Settings:
    """Widths as a recipe keeps them."""
    narrow = [f"{name}={bits}" for name, bits in sorted(widths.weights.items())]
    kept: Settings = {
        "clipped": widths.clipped,
        "activation_bits": widths.activations,
        "powers_of_two": widths.powers_of_two,
    }
    return kept | ({"weight_bits": "\n".join(narrow)} if narrow else {})


def _widths(settings: Settings) -> Widths:
    lines = str(settings.get("weight_bits", "")).splitlines()
    pairs = (line.rpartition("=") for line in lines)
    return Widths(
        weights={name: int(bits) for name, _, bits in pairs},
        activations=int(settings.get("activation_bits", 8)),
        clipped=bool(settings.get("clipped", True)),
        powers_of_two=bool(settings.get("powers_of_two", False)),
    )


def _in_words(widths: Widths) -> str:
    ranges = "least squared error" if widths.clipped else "extremes"
    return f"{in_bits(widths)}, ranges by {ranges}"


def _remarks(job: Job, settings: Settings, implementation: built.Implementation) -> Iterator[str]:
    if settings["architecture"] == ENGINE and settings["bits"] == "search":
        yield _SAVES_NOTHING
    if implementation.verification is Verification.RTL_SIMULATED:
        yield _NOT_ON_SILICON
    if is_quantized(job.loaded.model):
        yield _CAME_QUANTIZED


def _requires(target: TargetProfile, settings: Settings, runtime: str) -> Requirements:
    needs = target.requirements()
    if runtime != RUNTIME:  # for a design of one's own
        needs = msgspec.structs.replace(needs, runtimes=(RuntimeRequirement(name=runtime),))
    return msgspec.structs.replace(needs, architecture=str(settings["host"]))


def _placement(job: Job) -> Placement:
    """All of it: what gateware cannot compute is refused."""
    model = job.loaded.model
    with job.exclusively:
        feeds = job.workshop.feeds(1)
        shapes = fixed_shapes(model.inputs, feeds, f"the target {job.target.name}")
    nodes = nodes_of(model, shapes)
    macs = sum(node.macs for node in nodes)
    return Placement(operators=len(nodes), offloaded=len(nodes), macs=macs, offloaded_macs=macs)
