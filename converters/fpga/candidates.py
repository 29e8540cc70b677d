"""All ways to build a net for an FPGA, weighed before anything is made, and the choice among them.

More lanes answer sooner and take more LUTs, DSPs and block RAMs; weights in a flash take less RAM
and longer; logic takes a few clocks and the most LUTs. Pure, from the integer graph and a budget.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from cloud_sync.evidence import Alternative
from converters.fpga import estimate
from converters.fpga.estimate import Need
from converters.fpga.integer.graph import ArgMax, IntegerGraph, Table
from converters.fpga.program import program
from converters.fpga.schedule import schedule
from edgeml.errors import TargetError
from hardware.fpga.far import moved
from hardware.fpga.program import Program, Size

ENGINE, DATAFLOW = "engine", "dataflow"
LANES = (4, 8, 16, 32)
SPACIOUS = 0.7  # of the LUTs for logic: fuller parts route badly, and its estimate is rough
_BANKS = (2, 1)  # of input and output: two, where there is room for them
_RESOURCES = Need.__struct_fields__


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What gateware may take of a part, and how long an inference may take.

    `share` is how much of the part that is. `has_dsp` is of the part: its multipliers are DSPs,
    however few of them may be taken.
    """

    part: str
    family: str
    clock_mhz: float
    luts: int
    dsp: int = 0
    bram: int = 0
    spram: int = 0
    has_dsp: bool = False
    has_flash: bool = False
    latency_ms: float = math.inf
    share: float = 1.0

    @classmethod
    def of(
        cls, settings: Mapping[str, str | float | bool], *, clock_mhz: float, has_flash: bool
    ) -> "Budget":
        """A share of all that a target's part has, on a board with such a clock."""
        share = float(settings.get("share", 1.0))
        return cls(
            part=str(settings["part"]),
            family=str(settings["family"]),
            clock_mhz=clock_mhz,
            share=share,
            has_dsp=int(settings["dsp"]) > 0,
            has_flash=has_flash,
            latency_ms=float(settings.get("latency_ms", 0)) or math.inf,
            **{name: int(share * int(settings.get(name, 0))) for name in _RESOURCES},
        )

    def fullest(self, need: Need) -> float:
        """The share of that resource of which the largest share is taken."""
        return max(_shares(need, self))

    def lacking(self, need: Need, latency_ms: float) -> tuple[str, ...]:
        """What there is too little of, as `48 bram of 30`; empty where all is enough."""
        said = [
            f"{getattr(need, name):,} {name} of {getattr(self, name):,}"
            for name in _RESOURCES
            if getattr(need, name) > getattr(self, name)
        ]
        is_late = latency_ms > self.latency_ms
        return (*said, *([f"{latency_ms:.3g} ms of {self.latency_ms:g}"] if is_late else []))


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A way to build: an engine of so many lanes, or logic of so many bits.

    `banks` are those of input and output; of an engine whose weights `is_far`, they are in a flash.
    What is `lacking` keeps it from being built.
    """

    architecture: str
    clock_mhz: float
    cycles: int = 0
    need: Need = Need(luts=0)
    lanes: int = 0
    banks: int = 1
    is_far: bool = False
    bits: str = ""
    bytes: str = ""
    lacking: tuple[str, ...] = ()

    @property
    def latency_ms(self) -> float:
        """Of one inference."""
        return self.cycles / self.clock_mhz / 1000

    @property
    def name(self) -> str:
        """What tells it from the others."""
        if self.architecture == DATAFLOW:
            return f"dataflow of {self.bits}"
        return f"engine of {self.lanes} lanes{', weights in flash' * self.is_far}"

    @property
    def short(self) -> str:
        """The same for pictures."""
        if self.architecture == DATAFLOW:
            return "logic"
        return f"{self.lanes} lanes{' (flash)' * self.is_far}"


def engines(
    graph: IntegerGraph,
    budget: Budget,
    lanes: Iterable[int] = LANES,
    places: Collection[bool] = (False, True),
) -> Iterator[Candidate]:
    """An engine of each number of lanes, with its weights on the chip or in the board's flash.

    Args:
        graph: what it computes.
        budget: of the part.
        lanes: that are tried.
        places: whether weights may be far, or near; a board without a flash has them near.
    """
    for count in lanes:
        for is_far in sorted(places):
            if is_far and not budget.has_flash:
                continue
            made = [_engine(graph, budget, count, banks, is_far=is_far) for banks in _BANKS]
            yield next((each for each in made if not each.lacking), made[-1])


def images(graph: IntegerGraph, engine: Candidate) -> Program:
    """What an engine is loaded with.

    Raises:
        TargetError: it cannot run the graph.
    """
    near = program(schedule(graph, engine.lanes, banks=engine.banks))
    return moved(near) if engine.is_far else near


def logic(graph: IntegerGraph, budget: Budget, bits: str, *, most: float = SPACIOUS) -> Candidate:
    """A graph unrolled; `most` is the share of the LUTs that its estimate may be."""
    need, cycles = Need(luts=estimate.logic_luts(graph)), estimate.logic_cycles(graph)
    made = Candidate(
        architecture=DATAFLOW, clock_mhz=budget.clock_mhz, cycles=cycles, need=need, bits=bits
    )
    allowed = msgspec.structs.replace(budget, luts=int(most * budget.luts))
    lacking = allowed.lacking(need, made.latency_ms)
    if any(isinstance(layer, Table | ArgMax) for layer in graph.layers):
        lacking = ("tables and ArgMax are not unrolled",)
    return msgspec.structs.replace(made, lacking=lacking)


def front(candidates: Collection[Candidate]) -> tuple[Candidate, ...]:
    """Those that fit and that no other one beats: as good in all of it, and better in some."""
    fitting = [each for each in candidates if not each.lacking]
    return tuple(c for c in fitting if not any(_beats(other, c) for other in fitting))


def ranked(candidates: Iterable[Candidate], budget: Budget) -> tuple[Candidate, ...]:
    """Those that fit, the one to build first: the quickest, or with a latency the smallest.

    The smallest takes the least, added up over the shares of all resources. Of logic, which is
    always quick, the most faithful is first, since each takes minutes to make.
    """
    fitting = [each for each in candidates if not each.lacking]

    def small(each: Candidate) -> tuple[float, ...]:
        return (sum(_shares(each.need, budget)), each.latency_ms)

    def quick(each: Candidate) -> tuple[float, ...]:
        if each.architecture == DATAFLOW:
            return (0, -each.need.luts)
        return (1, each.latency_ms, *small(each))

    return tuple(sorted(fitting, key=small if budget.latency_ms < math.inf else quick))


def told(
    candidates: Sequence[Candidate], budget: Budget, chosen: Candidate | None
) -> tuple[Alternative, ...]:
    """Candidates as evidence and reports have them."""
    best = front(candidates)
    return tuple(
        Alternative(
            name=each.name,
            short=each.short,
            clock_mhz=each.clock_mhz,
            cycles=each.cycles or None,
            latency_ms=each.latency_ms or None,
            resources=msgspec.structs.asdict(each.need) if each.cycles else {},
            share=min(budget.fullest(each.need), 1e6) if each.cycles else None,
            lacking=", ".join(each.lacking),
            best=each in best,
            chosen=each == chosen,
        )
        for each in candidates
    )


def refused(candidates: Sequence[Candidate], budget: Budget) -> TargetError:
    """The error where none fits: the nearest of each architecture, and what it would need."""
    said = []
    for architecture in (ENGINE, DATAFLOW):
        mine = [each for each in candidates if each.architecture == architecture]
        if not mine:
            continue
        near = min(mine, key=lambda each: (not each.cycles, budget.fullest(each.need)))
        if architecture == DATAFLOW and any("luts of" in lack for lack in near.lacking):
            wanted = f"{near.need.luts:,} LUTs or more, of {budget.luts:,}"
            most = f" ({100 * SPACIOUS:.0f} % may be filled)" * (near.need.luts <= budget.luts)
            said.append(f"Unrolled into logic it would take {wanted}{most}.")
        elif architecture == DATAFLOW:
            said.append(f"It is not unrolled into logic: {', '.join(near.lacking)}.")
        elif not near.cycles:
            said.append(f"{'; '.join(near.lacking)}")
        else:
            lacking = ", ".join(near.lacking)
            said.append(f"The nearest, {near.name}, would take about {lacking} ({near.bytes}).")
    is_late = any("ms of" in lack for each in candidates for lack in each.lacking)
    allow = [*(["share"] if budget.share < 1 else []), *(["latency_ms"] if is_late else [])]
    more = f", or allow more: {', '.join(allow)}" if allow else ""
    return TargetError(
        f"The network does not fit {budget.part}.",
        why=" ".join(said),
        fix=f"Choose a larger FPGA or a smaller model{more}.",
    )


def _engine(
    graph: IntegerGraph, budget: Budget, lanes: int, banks: int, *, is_far: bool
) -> Candidate:
    made = Candidate(
        architecture=ENGINE, clock_mhz=budget.clock_mhz, lanes=lanes, banks=banks, is_far=is_far
    )
    try:
        loaded = images(graph, made)
    except TargetError as error:
        return msgspec.structs.replace(made, lacking=(f"{error.what} {error.why}",))
    size = Size.of(loaded)
    need = estimate.need(size, budget.family, has_dsp=budget.has_dsp, spram=budget.spram)
    made = msgspec.structs.replace(
        made,
        cycles=loaded.cycles,
        need=need,
        bytes=f"{size.weights * lanes:,} bytes of weights, {size.activations * lanes:,} of "
        "activations",
    )
    return msgspec.structs.replace(made, lacking=budget.lacking(need, made.latency_ms))


def _shares(need: Need, budget: Budget) -> tuple[float, ...]:
    """Of each resource, how much of the budget is taken."""
    pairs = ((getattr(need, name), getattr(budget, name)) for name in _RESOURCES)
    return tuple(
        taken / most if most else math.inf * taken if taken else 0.0 for taken, most in pairs
    )


def _beats(one: Candidate, other: Candidate) -> bool:
    first, second = _cost(one), _cost(other)
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _cost(each: Candidate) -> tuple[float, ...]:
    return (each.latency_ms, *msgspec.structs.astuple(each.need))
