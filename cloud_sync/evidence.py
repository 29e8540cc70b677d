"""Evidence and gates: what was measured, who says so, and what a rule made of it.

Evidence comes from the converter (on the build host, in an OCI artifact whose `subject` is
the release) or from a device (signed, through the outbox). A gate is a rule over evidence;
its result is `pass`, `fail` or `undecided`, with the numbers and the sample size that would
decide it. Both are plain data here; the rules live with those who decide: `converters`
(accuracy), `edge_agent` (golden outputs, live health) and `fleet` (rollouts).
"""

from enum import StrEnum

import msgspec

EVIDENCE_VERSION = 1


class Verification(StrEnum):
    """How far a variant was checked, strongest first; the one list everywhere."""

    DEVICE_EXECUTED = "device-executed"
    ARTIFACT_EXECUTED = "artifact-executed"
    ARTIFACT_EXECUTED_EMULATED = "artifact-executed-emulated"
    RTL_SIMULATED = "rtl-simulated"
    GRAPH_SIMULATED = "graph-simulated"
    PRE_COMPILE_EXECUTED = "pre-compile-executed"
    CPU_PROXY = "cpu-proxy"
    ESTIMATED = "estimated"


class Verdict(StrEnum):
    """What a gate says."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's verdict with its numbers.

    `value` was measured on `n` samples with the confidence interval [`low`, `high`];
    `baseline` is what it was compared with, `bound` the limit it had to keep. `n_needed`
    is the sample size that would decide an undecided gate. `reason` is the sentence that
    people read, with its numbers.
    """

    name: str
    result: Verdict
    value: float | None = None
    baseline: float | None = None
    bound: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    n: int = 0
    n_needed: int | None = None
    unit: str = ""
    reason: str = ""


def combined(gates: tuple[GateResult, ...]) -> Verdict:
    """The verdict of all gates together: any failure fails, else any doubt is undecided."""
    verdicts = {gate.result for gate in gates}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.PASS


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles of one inference in milliseconds over `n` runs."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    n: int


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on labelled samples with its confidence interval."""

    metric: str
    value: float
    low: float
    high: float
    confidence: float
    n: int


class GoldenResult(msgspec.Struct, frozen=True, kw_only=True):
    """A replay of the golden set against the variant's recorded outputs.

    `max_difference` is the largest absolute difference of any output element, `tolerance`
    what the variant allows (0 means bit-equal); `recorded_for` names the runtime, version
    and instruction set of the recording that was compared with. `label_accuracy` is set
    where the golden set has labels.
    """

    samples: int
    max_difference: float
    tolerance: float
    recorded_for: str = ""
    label_accuracy: Accuracy | None = None


class LiveResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a release did with live frames on a device during its trial.

    `confident` counts results at or above the pipeline's threshold among `inferred`;
    `baseline_*` are the same of the release that ran before, on the same device.
    """

    seconds: float
    inferred: int
    empty: int = 0
    errors: int = 0
    replaced: int = 0
    confident: int = 0
    latency: Latency | None = None
    baseline_release: str = ""
    baseline_inferred: int = 0
    baseline_confident: int = 0
    baseline_latency: Latency | None = None


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what something was measured."""

    hardware_class: str = ""
    cpu: str = ""
    instruction_set: str = ""
    threads: int = 0
    software: dict[str, str] = {}


class Raced(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run a variant on a device, as its race measured it; one of them is `chosen`.

    `result` says whether it computes what was proven.
    """

    runtime: str
    runtime_version: str = ""
    provider: str = ""
    threads: int = 1
    result: Verdict
    latency: Latency | None = None
    memory_bytes: int = 0
    reason: str = ""
    chosen: bool = False


class LeftOnCpu(msgspec.Struct, frozen=True, kw_only=True):
    """A node that an accelerator does not run, and why; `macs` are its multiplications."""

    node: str
    operator: str
    reason: str = ""
    macs: int = 0


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a model an accelerator runs, by operators and by multiply-accumulates.

    Only the model's own operators count, not what turns floats to integers at its ends.

        >>> half = Placement(operators=4, offloaded=3, macs=100, offloaded_macs=50)
        >>> half.operator_share, half.mac_share
        (0.75, 0.5)
    """

    operators: int
    offloaded: int
    macs: int = 0
    offloaded_macs: int = 0
    left: tuple[LeftOnCpu, ...] = ()

    @property
    def operator_share(self) -> float:
        """Of the operators; 0 where there are none."""
        return self.offloaded / self.operators if self.operators else 0.0

    @property
    def mac_share(self) -> float:
        """Of the multiply-accumulates; the operators' where nothing is multiplied."""
        return self.offloaded_macs / self.macs if self.macs else self.operator_share

    @property
    def share(self) -> float:
        """The smaller of both."""
        return min(self.operator_share, self.mac_share)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number that a compiler's model says and nobody measured; never a device's latency."""

    name: str
    value: float
    unit: str
    source: str


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """A way to build that was weighed by estimates before anything was made.

    `short` is a name for pictures, `share` the largest of the shares of the allowed resources that
    it takes, `lacking` why it cannot be; it is among the `best` where no other is as good in all of
    it and better in some. Of what could not even be laid out there are no figures.
    """

    name: str
    short: str
    clock_mhz: float
    cycles: int | None = None
    latency_ms: float | None = None
    resources: dict[str, int] = {}
    share: float | None = None
    lacking: str = ""
    best: bool = False
    chosen: bool = False


class CompileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a compiler did for an accelerator, in its own words and numbers.

    `compiler` is its name and version, `settings` what it was told, `seconds` how long it took on
    the build host; `estimates` are of level `estimated`, whatever else was verified, and so are
    `alternatives`, of which one was chosen.
    """

    compiler: str
    settings: dict[str, str] = {}
    seconds: float = 0.0
    placement: Placement | None = None
    estimates: tuple[Estimate, ...] = ()
    remarks: tuple[str, ...] = ()
    alternatives: tuple[Alternative, ...] = ()


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A measured record about one variant, from the converter or from a device.

    `stage` is `convert`, `test` (golden replay in a child process on the device) or
    `trial` (live). For a device, `device`, `desired_epoch`/`desired_counter` and `nonce`
    bind it to the desired state that asked for it; its signature is that of the batch that
    carries it. It proves who said it, not that a compromised device tells the truth. `race` is
    what a test compared to choose runtime and threads, `compiled` what a compiler said of a variant
    for an accelerator. What was not measured is None: `latency`, `memory_bytes`, `load_ms`; from a
    device the last two are 0, since fleets of version 0.1.0 read no null there.
    """

    version: int = EVIDENCE_VERSION
    stage: str
    model: str
    release: str = ""
    variant: str = ""
    target: str = ""
    runtime: str = ""
    runtime_version: str = ""
    verification: Verification
    device: str = ""
    desired_epoch: int = 0
    desired_counter: int = 0
    nonce: str = ""
    conditions: Conditions = Conditions()
    accuracy: Accuracy | None = None
    golden: GoldenResult | None = None
    latency: Latency | None = None
    live: LiveResult | None = None
    memory_bytes: int | None = None
    load_ms: float | None = None
    placement: dict[str, int] = {}
    gates: tuple[GateResult, ...] = ()
    accepted: str = ""
    race: tuple[Raced, ...] = ()
    compiled: CompileReport | None = None
