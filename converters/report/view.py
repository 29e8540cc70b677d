"""What the report says, as plain rows: pure, from a conversion's parts and its release."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.evidence import Accuracy, GateResult, Verdict, Verification
from cloud_sync.release import Release
from converters.candidates import Candidate
from converters.contest import Attempt
from converters.gates import metric_score
from converters.plan import flavours_of
from converters.recipe import FLOAT
from converters.report import words
from converters.report.compiled import Compilation, compilations, estimates
from converters.report.levels import verified
from converters.report.verdicts import (
    accuracy_cost,
    gate_line,
    gate_named,
    speed_gain,
)

if TYPE_CHECKING:
    from converters.build import Parts


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """What a target got, in sentences; `tone` is `good`, `warn` or `idle`."""

    target: str
    tone: str
    chip: str
    sentences: tuple[str, ...]


class GateLine(msgspec.Struct, frozen=True, kw_only=True):
    """A gate in a table: its mark, its name, what else there is to say, and the sentence."""

    tone: str
    mark: str
    name: str
    verdict: str
    needs: str
    reason: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate in the table of variants."""

    place: str
    in_release: bool
    runtime: str
    precision: str
    how: str
    size: str
    accuracy: str
    interval: str
    p50: str
    p95: str
    load: str
    memory: str
    verification: str
    verified: str
    gates: tuple[GateLine, ...]
    reason: str
    saturation: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was tried; `failed` says by runtime why that one could not run it."""

    number: int
    tone: str
    move: str
    made: str
    speeds: str
    sentence: str
    failed: tuple[tuple[str, str], ...] = ()


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """The candidates that ran beside each other, each once, and all that was tried for them.

    `foreign` are those of the targets whose processor was only emulated: what ran beside each
    other did so on another one.
    """

    targets: tuple[str, ...]
    foreign: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    attempts: tuple[Attempt, ...]

    @property
    def title(self) -> str:
        """Its targets."""
        return words.listed(self.targets)

    @property
    def note(self) -> str:
        """What a reader must not take for the targets' own; empty where all is."""
        if not self.foreign:
            return ""
        return (
            f"Times and answers in this part are of this machine, not of "
            f"{words.listed(self.foreign)}: they chose what was then executed on the emulated "
            "processor, whose answers are in the table of variants."
        )


class View:
    """One conversion's report, without its charts."""

    def __init__(self, parts: "Parts", release: Release) -> None:
        self.parts = parts
        self.release = release
        self._scores: dict[str, Accuracy] = {}

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target, in the order of the conversion."""
        candidates = (*self.parts.candidates, *self.parts.doubted)
        return tuple(dict.fromkeys(c.target.name for c in candidates))

    @property
    def races(self) -> tuple[Race, ...]:
        """Targets of the same arithmetic share a race."""
        groups: dict[str, list[Candidate]] = {name: [] for name in self.parts.attempts}
        for candidate in (*self.parts.candidates, *self.parts.doubted):
            if candidate.compiled is not None:
                continue
            groups.setdefault("+".join(flavours_of(candidate.target)), []).append(candidate)
        return tuple(
            Race(
                targets=tuple(dict.fromkeys(c.target.name for c in candidates)) or (name,),
                foreign=tuple(
                    dict.fromkeys(c.target.name for c in candidates if not c.timing.milliseconds)
                ),
                candidates=tuple({c.lane.key: c for c in _timed_first(candidates)}.values()),
                attempts=tuple(self.parts.attempts.get(name, ())),
            )
            for name, candidates in groups.items()
        )

    @property
    def compilations(self) -> tuple[Compilation, ...]:
        """What compilers said of files for accelerators."""
        return compilations((*self.parts.candidates, *self.parts.doubted))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader has to know before the numbers."""
        accepted = {
            f"{_what(c)} is deployed on {c.target.name} though a gate is undecided, because: "
            f"{words.quoted(c.choice.accepted)}.": None
            for c in self.parts.candidates
            if c.choice.accepted
        }
        proxies = [t for t in self.targets if self._verification(t) is Verification.CPU_PROXY]
        proxy = (
            f"{words.listed(proxies)}: measured on a CPU that has more instructions than the "
            "target. The target's own speed is another, and int8 may answer differently there."
        )
        failed = (f"{f.target} has no variant: {f}" for f in self.parts.failed)
        return (*failed, *self.parts.warnings, *accepted, *([proxy] if proxies else []))

    @property
    def headlines(self) -> tuple[Headline, ...]:
        """What each target got."""
        return tuple(self._headline(target) for target in self.targets)

    @property
    def tables(self) -> tuple[tuple[str, tuple[Row, ...]], ...]:
        """For each target its candidates: variants best first, then those left out."""
        return tuple(
            (target, tuple(self._row(candidate) for candidate in self._candidates(target)))
            for target in self.targets
        )

    def outcomes(self, race: Race) -> tuple[Outcome, ...]:
        """All that was tried, in order."""
        return tuple(
            _outcome(number, attempt) for number, attempt in enumerate(race.attempts, start=1)
        )

    def score(self, candidate: Candidate) -> Accuracy:
        """A candidate's accuracy with its own interval."""
        key = f"{candidate.target.name} {candidate.lane.key}"
        if key not in self._scores:
            self._scores[key] = metric_score(
                self.parts.metric,
                candidate.judged.outcomes,
                confidence=self.parts.request.confidence,
            )
        return self._scores[key]

    def _verification(self, target: str) -> Verification:
        return self._candidates(target)[0].verification

    def _candidates(self, target: str) -> list[Candidate]:
        chosen = [c for c in self.parts.candidates if c.target.name == target]
        doubted = [c for c in self.parts.doubted if c.target.name == target]
        chosen.sort(key=self._rank)
        return chosen + sorted(doubted, key=lambda c: c.timing.p50_ms)

    def _rank(self, candidate: Candidate) -> int:
        lane = candidate.lane
        named = (candidate.target.name, lane.runtime, lane.artifact.precision)
        ranks = (
            v.rank
            for v in self.parts.recipe.variants
            if (v.target, v.runtime, v.precision) == named
        )
        return next(ranks, len(self.parts.recipe.variants))

    def _headline(self, target: str) -> Headline:
        candidates = self._candidates(target)
        best = candidates[0]
        if best.compiled is not None:
            return self._compiled_headline(target, best)
        floats = [c for c in candidates if c.lane.artifact.precision == FLOAT]
        name = f"{best.lane.artifact.weights} on {best.lane.runtime}"
        if best.lane.artifact.precision == FLOAT:
            return Headline(
                target=target,
                tone="idle",
                chip=name,
                sentences=tuple(self._why_float(best, candidates[1:])),
            )
        return Headline(
            target=target,
            tone="warn" if best.choice.accepted else "good",
            chip=name,
            sentences=tuple(self._why_quantized(best, floats)),
        )

    def _compiled_headline(self, target: str, best: Candidate) -> Headline:
        """What a compiled target got, and how far that was checked."""
        chip = f"{best.lane.artifact.weights} for {best.lane.runtime}"
        if not best.choice.deployable:
            said = f"{_what(best)} was left out: {best.choice.reason}"
            return Headline(target=target, tone="warn", chip="no variant", sentences=(said,))
        checked = f"{best.verification}: {verified(best)}. Nothing here is a device's latency."
        return Headline(
            target=target,
            tone="warn" if best.choice.accepted else "good",
            chip=chip,
            sentences=(
                accuracy_cost(gate_named(best.gates, "accuracy"), self.parts.request.max_drop),
                f"Checked as {checked}",
                *estimates(best),
            ),
        )

    def _why_quantized(self, best: Candidate, floats: Sequence[Candidate]) -> Iterator[str]:
        if not best.timing.milliseconds:
            yield f"{_what(best)} was accepted: {best.choice.reason}"
            return
        here = best.timing.p50_ms
        beside = next((f for f in floats if f.lane.runtime == best.lane.runtime), None)
        before = f" instead of {words.number(beside.timing.p50_ms)}" if beside else ""
        yield (
            f"{_what(best)} won: {speed_gain(gate_named(best.gates, 'speedup'))}, "
            f"{words.number(here)} ms an inference{before}."
        )
        yield accuracy_cost(gate_named(best.gates, "accuracy"), self.parts.request.max_drop)
        fastest = min(floats, key=lambda f: f.timing.p50_ms, default=None)
        if fastest is not None and fastest.lane.runtime != best.lane.runtime:
            there = fastest.timing.p50_ms
            yield (
                f"The fastest float32 is on {fastest.lane.runtime} and takes "
                f"{words.number(there)} ms: the winner has {there / here:.2f} x its speed."
            )
        before_bytes = floats[0].lane.artifact.size if floats else 0
        now = words.size(best.lane.artifact.size)
        yield f"Its file has {now}{f' instead of {words.size(before_bytes)}' if floats else ''}."

    def _why_float(self, best: Candidate, others: Sequence[Candidate]) -> Iterator[str]:
        score = self.score(best)
        yield (
            f"{best.lane.artifact.weights.capitalize()} was kept, on {best.lane.runtime}"
            f"{_time_of(best)}: {score.metric} "
            f"{words.share(score.value)} ({words.share(score.low)} to {words.share(score.high)})."
        )
        quantized = [c for c in others if c.lane.artifact.precision != FLOAT]
        for other in quantized:
            if other.choice.deployable:
                yield (
                    f"{_what(other)} is in the release too, but takes "
                    f"{words.number(other.timing.p50_ms)} ms."
                )
            else:
                yield f"{_what(other)} was left out: {other.choice.reason.rstrip('.')}."
        remedy = next((c.choice.remedy for c in quantized if c.choice.undecided), "")
        if remedy:
            yield f"{remedy} The reason is kept in the release."
        if not quantized:
            attempts = next(r.attempts for r in self.races if best.target.name in r.targets)
            yield _none_of(attempts)

    def _row(self, candidate: Candidate) -> Row:
        artifact, timing = candidate.lane.artifact, candidate.timing
        score, latency = self.score(candidate), timing.latency
        in_release = candidate.choice.deployable
        rank = self._rank(candidate)
        place = "best" if rank == 0 else f"rank {rank}"
        return Row(
            place=place if in_release else "left out",
            in_release=in_release,
            runtime=_answered(candidate),
            precision=artifact.weights,
            how="" if artifact.precision == FLOAT else _how(candidate),
            size=words.size(artifact.size),
            accuracy=words.share(score.value),
            interval=f"{100 * score.low:.2f} to {100 * score.high:.2f}",
            p50=words.number(latency.p50_ms) if latency else "-",
            p95=words.number(latency.p95_ms) if latency else "-",
            load=f"{words.number(timing.load_ms)} ms" if timing.load_ms else "-",
            memory=words.size(timing.memory_bytes) if timing.memory_bytes else "-",
            verification=str(candidate.verification),
            verified=verified(candidate),
            gates=tuple(GateLine(**gate_line(gate)) for gate in candidate.gates),
            reason=words.sentence(candidate.choice.reason),
            saturation=str(candidate.saturation) if candidate.saturation else "",
        )


def _answered(candidate: Candidate) -> str:
    """The runtime of the device, and what answered in its place where that was another."""
    runtime, info = candidate.lane.runtime, candidate.timing.info
    if info.name == runtime:
        return f"{runtime} {info.version}"
    return f"{runtime}; here {info.name} {info.version} answered"


def _timed_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """In their order, each lane as it was timed here before what an emulator showed of it."""
    here = {c.lane.key: c for c in reversed(candidates) if c.timing.milliseconds}
    return [here.get(candidate.lane.key, candidate) for candidate in candidates]


def _time_of(best: Candidate) -> str:
    if not best.timing.milliseconds:
        return ""
    return f", where it is fastest, {words.number(best.timing.p50_ms)} ms an inference"


def _what(candidate: Candidate) -> str:
    return (
        f"{candidate.lane.artifact.precision.capitalize()} on {candidate.lane.runtime} "
        f"({candidate.move})"
    )


def _how(candidate: Candidate) -> str:
    artifact = candidate.lane.artifact
    nodes = f"{artifact.nodes} nodes quantized" if artifact.nodes else ""
    return ", ".join(filter(None, (candidate.move, nodes)))


def _none_of(attempts: Sequence[Attempt]) -> str:
    if not attempts:
        return "Nothing of this model can be quantized."
    refused = sum(bool(a.refused) for a in attempts)
    slow = sum(not a.refused and not a.accuracy for a in attempts)
    judged = len(attempts) - refused - slow
    reasons = [
        f"{refused} {'were' if refused > 1 else 'was'} refused" if refused else "",
        f"{slow} {'were' if slow > 1 else 'was'} not fast enough" if slow else "",
        f"{judged} lost too much or could not be decided" if judged else "",
    ]
    tried = f"{len(attempts)} things that were" if len(attempts) > 1 else "one thing that was"
    return f"Of the {tried} tried, {words.listed(filter(None, reasons))}; see the list below."


def _outcome(number: int, attempt: Attempt) -> Outcome:
    tones: Mapping[Verdict, str] = {
        Verdict.PASS: "good",
        Verdict.UNDECIDED: "warn",
        Verdict.FAIL: "bad",
    }
    verdicts = [gate.result for gate in attempt.accuracy.values()]
    tone = next((tones[v] for v in tones if v in verdicts), "idle")
    made = f"{words.size(attempt.bytes)}, {attempt.nodes} nodes" if attempt.bytes else ""
    return Outcome(
        number=number,
        tone=tone,
        move=attempt.move,
        made=made,
        speeds=", ".join(f"{r} {s:.2f} x" for r, s in attempt.speedups.items()),
        sentence=_sentence(attempt),
        failed=tuple((r, words.sentence(why)) for r, why in attempt.failed.items()),
    )


def _sentence(attempt: Attempt) -> str:
    slow = attempt.speedups and attempt.fidelity is None
    if slow and not attempt.accuracy and not attempt.refused:
        return f"{words.sentence(attempt.outcome)[:-1]}: not fast enough to be judged."
    if len(attempt.accuracy) <= 1 or attempt.refused:
        return words.sentence(attempt.outcome)
    by_reason: dict[str, list[str]] = {}
    for runtime, gate in attempt.accuracy.items():
        by_reason.setdefault(gate.reason, []).append(runtime)
    return " ".join(
        f"On {words.listed(runtimes)}: {reason.rstrip('.')}."
        for reason, runtimes in by_reason.items()
    )


def gates_of(race: Race) -> Iterator[tuple[int, Attempt, str, GateResult]]:
    """Every accuracy gate of a race: the attempt's number, itself, the runtime and the gate."""
    for place, attempt in enumerate(race.attempts, start=1):
        for runtime, gate in attempt.accuracy.items():
            yield place, attempt, runtime, gate
