"""How a variant is run on this device: with which of its runtimes, and how many threads.

What may run it follows from the variant and the device; which of that is quickest is raced in
the update's test, once for each (release, variant, runtime versions, device kind), and kept
(`edge_agent.choices`). Pure; nothing here measures or runs.
"""

from collections.abc import Sequence

import msgspec

from cloud_sync.evidence import GateResult, Raced, Verdict, Verification
from cloud_sync.release import Variant
from edgeml.errors import ModelError
from hardware.capabilities import SIMULATED_FPGA, Capabilities, RuntimeInfo
from hardware.requirements import RuntimeRequirement, runtime_fits

MAX_THREADS = 8
# More threads keep more cores awake: they have to bring something, and cannot for a tiny model.
WORTH_MS = 1.0
GAIN = 0.9


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime in its installed version, the provider asked of it, and its threads."""

    runtime: str
    version: str = ""
    provider: str = ""
    threads: int = 1

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return " ".join(filter(None, (self.runtime, self.version, self.provider, threads)))


def executions(
    variant: Variant, capabilities: Capabilities, *, cpus: int, threads: int = 0
) -> tuple[Execution, ...]:
    """Everything that may run a variant here: the variant's first choice with one thread first.

    Args:
        variant: what is to be run.
        capabilities: the device's runtimes, with their versions.
        cpus: on how many cores this process may run.
        threads: the only number of threads to use, where it is set by hand; else 0.

    Raises:
        ModelError: no runtime here is one that the variant names, in a version that it allows.
    """
    accelerator = variant.requires.accelerator
    is_gateware = accelerator is not None and accelerator.kind == "fpga"  # it has no threads
    counts = (threads or 1,) if threads or is_gateware else thread_counts(cpus)
    found = tuple(
        Execution(runtime=info.name, version=info.version, provider=wanted.provider, threads=count)
        for wanted in variant.requires.runtimes
        for info in _fitting(wanted, capabilities)
        for count in counts
    )
    if not found:
        names = ", ".join(f"{r.name}{r.versions}" for r in variant.requires.runtimes)
        here = ", ".join(f"{r.name} {r.version}" for r in capabilities.runtimes)
        raise ModelError(
            f"No runtime here can run {variant.name}.",
            why=f"It wants {names or 'none'}, here is {here or 'none'}.",
        )
    return found


def thread_counts(cpus: int) -> tuple[int, ...]:
    """1, 2, 4 ... up to the cores: `thread_counts(6)` is (1, 2, 4)."""
    top = min(max(cpus, 1), MAX_THREADS)
    return tuple(1 << power for power in range(top.bit_length()))


def following(candidates: Sequence[Execution], raced: Sequence[Raced]) -> Execution | None:
    """What to race next; None when nothing is left that could win.

    More threads are tried as long as doubling them has brought something.
    """
    done = {(r.runtime, r.provider, r.threads): r for r in raced}
    for execution in candidates:
        if (execution.runtime, execution.provider, execution.threads) in done:
            continue
        ran = [
            r for r in raced if (r.runtime, r.provider) == (execution.runtime, execution.provider)
        ]
        if _may_gain(ran):
            return execution
    return None


def winner(raced: Sequence[Raced]) -> int:
    """The index of what to run: of those that compute what was proven, the clearly quickest.

    The variant's own order decides between runtimes that are about as quick, and fewer threads
    between thread counts.

    Raises:
        ValueError: nothing was raced.
    """
    if not raced:
        raise ValueError("nothing was raced")
    order = (Verdict.PASS, Verdict.UNDECIDED, Verdict.FAIL)
    best_verdict = min((r.result for r in raced), key=order.index)
    able = [index for index, r in enumerate(raced) if r.result is best_verdict]
    best = able[0]
    for index in able[1:]:
        if _p50(raced[index]) < _p50(raced[best]) * GAIN:
            best = index
    return best


def placement_gate(execution: Execution, placement: dict[str, int]) -> GateResult | None:
    """Whether the provider asked for runs the model; None where none was asked for.

    A model that the accelerator left to the CPU fails; one of which it left a part is undecided.
    """
    if not execution.provider:
        return None
    nodes, taken = sum(placement.values()), placement.get(execution.provider, 0)
    if nodes and taken == nodes:
        result = Verdict.PASS
    else:
        result = Verdict.UNDECIDED if taken else Verdict.FAIL
    others = ", ".join(
        f"{count} by {name}" for name, count in placement.items() if name != execution.provider
    )
    return GateResult(
        name="placement",
        result=result,
        value=taken / nodes if nodes else 0.0,
        bound=1.0,
        n=nodes,
        reason=f"{execution.provider} runs {taken} of {nodes} nodes"
        + (f", {others}" if others else ""),
    )


def verification(execution: Execution, capabilities: Capabilities) -> Verification:
    """What running a variant here proves: less than a device's word where the FPGA is simulated."""
    ways = {
        way
        for info in capabilities.runtimes
        if info.name == execution.runtime
        for way in info.providers
    }
    if SIMULATED_FPGA in ways:
        return Verification.RTL_SIMULATED
    return Verification.DEVICE_EXECUTED


def _fitting(wanted: RuntimeRequirement, capabilities: Capabilities) -> list[RuntimeInfo]:
    return [
        info
        for info in capabilities.runtimes
        if runtime_fits(wanted, msgspec.structs.replace(capabilities, runtimes=(info,)))
    ]


def _may_gain(ran: Sequence[Raced]) -> bool:
    """Whether a higher number of threads may be quicker than those that ran, fewest first."""
    if not ran:
        return True
    last = _p50(ran[-1])
    if ran[-1].result is Verdict.FAIL or last < WORTH_MS:
        return False
    return len(ran) == 1 or last < _p50(ran[-2]) * GAIN


def _p50(raced: Raced) -> float:
    return raced.latency.p50_ms if raced.latency else float("inf")
