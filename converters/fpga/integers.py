"""A model as integers of any widths, and all ways to build it: from calibration, or one sample."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec
import numpy as np

from cloud_sync.evidence import Alternative
from converters.fpga.candidates import (
    DATAFLOW,
    ENGINE,
    SPACIOUS,
    Budget,
    Candidate,
    logic,
    ranked,
    refused,
    told,
)
from converters.fpga.dataflow import HOPELESS
from converters.fpga.flow import AUTO, budget_of, engines_of
from converters.fpga.integer.graph import BITS, IntegerGraph
from converters.fpga.integer.network import Network, evaluate, outputs
from converters.fpga.integer.quantize import Observed, Widths, observe, quantize
from converters.fpga.integer.reference import decode_output, encode_input, run
from converters.fpga.search import ACTIVATIONS, FLOORS, Fidelity, narrowed, signal_to_noise
from converters.fpga.settings import UNROLLER, Settings
from converters.toolchains.store import require
from edgeml.errors import TargetError, ToolchainError

_BATCH = 32
_COMPARED = 64  # samples on which kinds of ranges are compared
_SKETCHED = (2, 4, 6, 8)  # bits of weights, where nobody knows yet how many they need


class Weighed(msgspec.Struct, frozen=True):
    """All ways to build a model, each with the widths to try; of engines none are named."""

    budget: Budget
    ways: tuple[tuple[Candidate, tuple[Widths, ...]], ...]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All of them."""
        return tuple(candidate for candidate, _ in self.ways)

    @property
    def order(self) -> tuple[Candidate, ...]:
        """Those that fit, the one to build first."""
        return ranked(self.candidates, self.budget)

    def widths(self, candidate: Candidate) -> tuple[Widths, ...]:
        """Those of a candidate."""
        return next(widths for each, widths in self.ways if each is candidate)

    def told(self, chosen: Candidate | None = None) -> tuple[Alternative, ...]:
        """As evidence has them."""
        return told(self.candidates, self.budget, chosen)

    def refusal(self) -> TargetError:
        """The error where none fits."""
        return refused(self.candidates, self.budget)


@dataclass(frozen=True, eq=False)
class Integers:
    """A network as integers, by samples, [samples, *its input]."""

    network: Network
    samples: np.ndarray

    @cached_property
    def observed(self) -> dict[str, Observed]:
        """What tensors hold on the samples."""
        starts = range(0, len(self.samples), _BATCH)
        return observe(self.network, (self.samples[i : i + _BATCH] for i in starts))

    def graph(self, widths: Widths) -> IntegerGraph:
        """The integer model of these widths."""
        return quantize(self.network, self.observed, widths)

    def choices(self, settings: Settings) -> Iterator[Widths]:
        """Widths in the order of their promise."""
        if settings["architecture"] == ENGINE and settings["bits"] != "search":
            kinds = [Widths(clipped=True), Widths(clipped=False)]
            yield from sorted(kinds, key=lambda kind: -self._fidelity(kind))
            return
        sizes = {node.name: node.weights.size for node in self.network.linears}
        powers = settings["architecture"] != ENGINE  # their multiplications are wires
        seen: list[Widths] = []
        for floor, activations in zip(FLOORS, ACTIVATIONS, strict=True):
            plain = Widths(activations=activations, powers_of_two=powers)
            widths = replace(plain, weights=narrowed(sizes, self._fidelity_of(plain), floor))
            if widths not in seen:
                seen.append(widths)
                yield widths

    def sketched(self, settings: Settings) -> Weighed:
        """All ways to build it, by shapes alone: ranges may be of any sample."""
        return self._weighed(settings, map(_logic, _SKETCHED, ACTIVATIONS))

    def weighed(self, settings: Settings) -> Weighed:
        """All ways to build it; logic of the widths that calibration data ask for."""
        return self._weighed(settings, self.choices({**settings, "architecture": DATAFLOW}))

    def _weighed(self, settings: Settings, logics: Iterable[Widths]) -> Weighed:
        """Engines, and logic: if not even that of the fewest bits fits, of no more."""
        budget, architecture = budget_of(settings), settings["architecture"]
        most = HOPELESS if architecture == DATAFLOW else SPACIOUS

        def way(widths: Widths) -> tuple[Candidate, tuple[Widths, ...]]:
            made = logic(self.graph(widths), budget, in_bits(widths), most=most)
            if not made.lacking and (missing := _no_unroller()):
                made = msgspec.structs.replace(made, lacking=(missing,))
            return made, (widths,)

        ways: list[tuple[Candidate, tuple[Widths, ...]]] = []
        if architecture in {AUTO, ENGINE}:
            found = engines_of(self.graph(Widths()), budget, settings)
            ways += [(candidate, ()) for candidate in found]
        if architecture in {AUTO, DATAFLOW}:
            least = way(_logic(BITS[0], ACTIVATIONS[0]))
            ways += [least] if least[0].lacking else map(way, logics)
        return Weighed(budget, tuple(ways))

    def _fidelity_of(self, plain: Widths) -> Fidelity:
        return lambda bits: self._fidelity(replace(plain, weights=bits))

    def _fidelity(self, widths: Widths) -> float:
        graph = self.graph(widths)
        given = decode_output(graph, run(graph, encode_input(graph, self.samples[:_COMPARED])))
        return signal_to_noise(self._wanted, given)

    @cached_property
    def _wanted(self) -> np.ndarray:
        return outputs(self.network, evaluate(self.network, self.samples[:_COMPARED]))


def _logic(bits: int, activations: int) -> Widths:
    """The same bits for all weights; factors are wires."""
    return Widths(default=bits, activations=activations, powers_of_two=True)


def in_bits(widths: Widths) -> str:
    """The bits of weights and activations, in words."""
    bits: Sequence[int] = sorted(set(widths.weights.values())) or [widths.default]
    weights = f"{bits[0]} to {bits[-1]}" if len(bits) > 1 else str(bits[0])
    return f"weights of {weights} bits, activations of {widths.activations}"


def _no_unroller() -> str:
    """Why logic cannot be made here; empty where it can."""
    try:
        require(UNROLLER)
    except ToolchainError as error:
        return f"{error.what.rstrip('.')} ({error.fix.rstrip('.')})"
    return ""
