"""Files for FPGAs: an integer model, gateware that computes it, and the proof that it does.

What the gateware computes is defined by the integer model's reference, in int64. The converter
judges the reference on all evaluation samples; the gateware's Verilog runs in Verilator on the
golden samples and must give the same bits, which is the gate `rtl`. Nothing is run on silicon.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
import numpy as np

from cloud_sync.evidence import CompileReport, Placement, Verification
from converters.artifact import Artifact
from converters.axes import fixed_shapes
from converters.backends.graph import nodes_of
from converters.backends.interface import Execution, Job, Offer, Proof, Tensors
from converters.backends.support import Constraint
from converters.fpga import built
from converters.fpga.dataflow import can_unroll, estimated_luts
from converters.fpga.integer.graph import BITS, IntegerGraph
from converters.fpga.integer.network import Network, evaluate, outputs
from converters.fpga.integer.operators import supported
from converters.fpga.integer.quantize import Observed, Widths, observe, quantize
from converters.fpga.integer.reading import read
from converters.fpga.integer.reference import decode_output, encode_input, run
from converters.fpga.search import ACTIVATIONS, FLOORS, Fidelity, narrowed, signal_to_noise
from converters.fpga.settings import (
    AUTO,
    DATAFLOW,
    ENGINE,
    OPTIONS,
    UNROLLER,
    Settings,
    require_tools,
    settings_of,
)
from converters.fpga.simulate import require_programs
from converters.fpga.synthesis import TOOLCHAIN as SYNTHESIS
from converters.golden import golden_indices
from converters.model import is_quantized
from converters.recipe import Method, Parameters, Rule
from converters.toolchains.store import require
from edgeml.errors import ModelError, TargetError, ToolchainError
from hardware.capabilities import RuntimeInfo
from hardware.profiles import TargetProfile
from hardware.requirements import Requirements, RuntimeRequirement
from hardware.runtimes.formats import ONNX

NAME = "fpga"
RUNTIME = "fpga"
RULES = (Rule(method=Method.STATIC, parameters=Parameters(activation="int8", weight="int8")),)
_BATCH = 32
_CALIBRATION = 512  # samples at most, of which ranges are taken
_COMPARED = 64  # samples on which kinds of ranges are compared
_SPACIOUS = 0.7  # of the LUTs: fuller parts route badly, and the estimate is rough
_CAME_QUANTIZED = "The model came quantized: float is what onnxruntime makes of it as it came."
_NOT_ON_SILICON = "The gateware ran in Verilator, never on an FPGA: its clock is the tools' word."


class Fpga:
    """The backend `fpga`."""

    name = NAME
    toolchains: tuple[str, ...] = ()
    optional_toolchains: tuple[str, ...] = (SYNTHESIS, UNROLLER)
    formats: tuple[str, ...] = (ONNX,)
    options: tuple[str, ...] = OPTIONS
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
        model = _Integers(job)
        if decided is not None:
            yield _made(job, model, settings, _widths(decided))
        elif settings["architecture"] == AUTO:
            yield from _automatic(job, model, settings)
        else:
            for widths in model.choices(settings):
                yield _made(job, model, settings, widths)


class _Integers:
    """The model as integers, of any widths."""

    def __init__(self, job: Job) -> None:
        self._job = job
        with job.exclusively:
            feeds = job.workshop.feeds(_CALIBRATION)
            tensors = [np.asarray(feed[0], np.float32)[0] for feed in feeds]
        self.samples = np.stack(tensors)

    @cached_property
    def network(self) -> Network:
        """What is to be computed."""
        return read(self._job.loaded.model.data, self.samples.shape[1:])

    @cached_property
    def golden(self) -> np.ndarray:
        """The golden set's samples, as the model takes them."""
        loaded, found = self._job.loaded, self._job.reference.found
        with self._job.exclusively:
            wanted = golden_indices(loaded.task, loaded.evaluation, found)
            chosen = [s for index, s in enumerate(loaded.evaluation) if index in wanted]
            feeds = [loaded.task.prepare(sample) for sample in chosen]
        return np.stack([np.asarray(feed[0], np.float32)[0] for feed in feeds if feed])

    @cached_property
    def observed(self) -> dict[str, Observed]:
        """What tensors hold on calibration samples."""
        self._job.progress.step(f"Calibrating for {self._job.target.name}")
        starts = range(0, len(self.samples), _BATCH)
        return observe(self.network, (self.samples[i : i + _BATCH] for i in starts))

    def graph(self, widths: Widths) -> IntegerGraph:
        """The integer model of these widths."""
        return quantize(self.network, self.observed, widths)

    def choices(self, settings: Settings) -> Iterator[Widths]:
        """Widths in the order of their promise."""
        if settings["architecture"] == "engine" and settings["bits"] != "search":
            kinds = [Widths(clipped=True), Widths(clipped=False)]
            yield from sorted(kinds, key=lambda kind: -self._fidelity(kind))
            return
        sizes = {node.name: node.weights.size for node in self.network.linears}
        powers = settings["architecture"] != "engine"  # their multiplications are wires
        seen: list[Widths] = []
        for floor, activations in zip(FLOORS, ACTIVATIONS, strict=True):
            plain = Widths(activations=activations, powers_of_two=powers)
            widths = replace(plain, weights=narrowed(sizes, self._fidelity_of(plain), floor))
            if widths not in seen:
                seen.append(widths)
                yield widths

    @property
    def narrowest(self) -> Widths:
        """Of the fewest bits that there are, for logic."""
        weights = {node.name: BITS[0] for node in self.network.linears}
        return Widths(weights=weights, activations=ACTIVATIONS[0], powers_of_two=True)

    def _fidelity_of(self, plain: Widths) -> Fidelity:
        return lambda bits: self._fidelity(replace(plain, weights=bits))

    def _fidelity(self, widths: Widths) -> float:
        graph = self.graph(widths)
        given = decode_output(graph, run(graph, encode_input(graph, self.samples[:_COMPARED])))
        return signal_to_noise(self._wanted, given)

    @cached_property
    def _wanted(self) -> np.ndarray:
        return outputs(self.network, evaluate(self.network, self.samples[:_COMPARED]))


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


def _automatic(job: Job, model: _Integers, settings: Settings) -> Iterator[Offer]:
    """Logic where it fits, which takes a few clocks; where none is faithful enough, the engine.

    Raises:
        TargetError: not even an engine fits; the error has the estimates of both.
    """
    logic, engine = ({**settings, "architecture": name} for name in (DATAFLOW, ENGINE))
    luts = int(settings["luts"])
    least = estimated_luts(model.graph(model.narrowest))
    if least <= _SPACIOUS * luts and (reason := _no_unroller()):
        job.progress.note(f"Unrolled logic may fit {job.target.name}, but {reason}")
    elif least <= _SPACIOUS * luts:
        fitting = [
            w for w in model.choices(logic) if can_unroll(model.graph(w), round(_SPACIOUS * luts))
        ]
        for widths in reversed(fitting):  # the most faithful first: each costs minutes
            try:
                made = _made(job, model, logic, widths)
            except (ModelError, TargetError) as error:
                job.progress.note(f"No logic for {job.target.name}: {error}")
            else:
                yield made
    try:
        for widths in model.choices(engine):
            yield _made(job, model, engine, widths)
    except TargetError as error:
        said = f"Unrolled into logic it would take {least:,} LUTs or more, of {luts:,}."
        raise TargetError(error.what, why=f"{error.why} {said}", fix=error.fix) from error


def _no_unroller() -> str:
    """Why logic cannot be made here; empty where it can."""
    try:
        require(UNROLLER)
    except ToolchainError as error:
        return f"{error.what[0].lower()}{error.what[1:].rstrip('.')} ({error.fix})."
    return ""


def _made(job: Job, model: _Integers, settings: Settings, widths: Widths) -> Offer:
    """An integer model, built as far as it was asked for."""
    graph = model.graph(widths)
    target, progress = job.target, job.progress
    codes = encode_input(graph, model.golden)
    progress.step(f"Building gateware for {target.name}")
    implementation = built.build(
        graph, settings, job.folder, codes, say=progress.step, keeper=job.cache
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
        settings=kept,
        requires=_requires(target, settings, implementation.runtime),
        gates=implementation.gates,
        report=CompileReport(
            compiler=f"edgeml {settings['architecture']}",
            settings={name: str(value) for name, value in kept.items()},
            seconds=implementation.seconds,
            placement=placement,
            estimates=implementation.estimates,
            remarks=(*_remarks(job, implementation), *implementation.remarks),
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
    bits = sorted(set(widths.weights.values())) or [widths.default]
    weights = f"{bits[0]} to {bits[-1]}" if len(bits) > 1 else str(bits[0])
    ranges = "least squared error" if widths.clipped else "extremes"
    return f"weights of {weights} bits, activations of {widths.activations}, ranges by {ranges}"


def _remarks(job: Job, implementation: built.Implementation) -> Iterator[str]:
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
