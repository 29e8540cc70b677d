"""Compiles for every target that a backend serves, several at a time, and judges what is offered.

A target that fails is told and leaves the others standing.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from threading import RLock

import msgspec

from cloud_sync.evidence import GateResult, Placement, Verdict
from converters.arena import EVALUATOR, Arena
from converters.axes import fixed_shapes
from converters.backends import backend
from converters.backends.graph import nodes_of
from converters.backends.interface import (
    Backend,
    Execution,
    Job,
    Offer,
    Tensors,
    require_here,
)
from converters.backends.options import own_options, refuse_unknown
from converters.backends.support import Unsupported, unsupported
from converters.cache import Cache
from converters.candidates import Candidate, as_decided, decided
from converters.evaluation import Judged, evaluate
from converters.gates import metric_gate
from converters.lanes import Lane, Timing
from converters.loading import Loaded
from converters.model import FloatModel
from converters.progress import Progress
from converters.request import Request
from converters.result import Skipped, alike
from converters.workshop import Workshop
from edgeml.errors import EdgemlError, GateFailed, ModelError, ToolchainError
from hardware.capabilities import RuntimeInfo
from hardware.profiles import TargetProfile
from hardware.runtimes.formats import ONNX

_LOG = logging.getLogger(__name__)
_TOLD = 5


class Compiler:
    """Compiled targets of one conversion.

    Args:
        loaded, request, cache, progress: of the conversion.
        workshop: the float model's files, calibration data.
        arena: where the float model answers.
        folder: for files.
    """

    def __init__(
        self,
        loaded: Loaded,
        request: Request,
        workshop: Workshop,
        arena: Arena,
        *,
        folder: Path,
        cache: Cache,
        progress: Progress,
    ) -> None:
        self._loaded = loaded
        self._request = request
        self._workshop = workshop
        self._arena = arena
        self._folder = folder
        self._cache = cache
        self._progress = progress
        self._lock = RLock()
        self._ready: dict[str, tuple[Backend, tuple[Unsupported, ...]]] = {}
        self.failures: dict[str, EdgemlError] = {}
        self.skipped: tuple[Skipped, ...] = ()

    def check(self) -> None:
        """Say what is missing and what will not run on the accelerators, before anything is made.

        Raises:
            UserError: none of the targets has an option that was given.
            EdgemlError: nothing that was asked for can be made.
        """
        self._refuse_unknown_options()
        for target in self._loaded.plan.compiled:
            try:
                serving = backend(target.backend)
                _refuse_format(serving, target, self._loaded.model)
                if not self._is_equipped(serving, target):
                    continue
                self._foresee(serving, target)
                self._ready[target.name] = serving, self._unsupported(serving, target)
            except EdgemlError as error:
                self.fail(target.name, error)
        if self._ready or self._loaded.plan.targets:
            self._tell()
            return
        if self.failures:
            raise joined(self.failures)
        reasons = alike((each.target, each.reason) for each in self.skipped)
        raise ToolchainError(
            f"None of the targets in {', '.join(self._request.targets)} can be made here.",
            why=" ".join(f"{', '.join(names)}: {reason}." for reason, names in reasons),
            fix="Install what the targets that you want need; `edgeml targets` lists it.",
        )

    def compile(self, reference: Lane) -> list[Candidate]:
        """What each target gets, judged: the first offer that passes its gates, or all that fail.

        Args:
            reference: the float model on the runtime that candidates are compared with.
        """
        targets = [t for t in self._loaded.plan.compiled if t.name in self._ready]
        if not targets:
            return []
        outcomes = self._arena.judge(reference, reference.artifact)
        self._progress.step(f"Compiling for {', '.join(target.name for target in targets)}")
        with ThreadPoolExecutor(max(1, min(len(targets), os.cpu_count() or 1))) as pool:
            jobs = [pool.submit(self._compiled, target, reference, outcomes) for target in targets]
            try:
                return [candidate for job in jobs for candidate in job.result()]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def fail(self, target: str, error: EdgemlError) -> None:
        """Note that a target will not be in the release; a replay must make all of them."""
        if self._loaded.recipe is not None:
            raise error
        self.failures[target] = error
        self._progress.note(f"{target} is left out: {error.what}")

    def _refuse_unknown_options(self) -> None:
        refuse_unknown(self._request.options, self._loaded.plan.compiled)

    def _own(self, serving: Backend) -> Request:
        """The request as a backend sees it: with the options that are its own."""
        return msgspec.structs.replace(
            self._request, options=own_options(serving, self._request.options)
        )

    def _is_equipped(self, serving: Backend, target: TargetProfile) -> bool:
        """Whether a target's toolchains are here; of a group, those without are left out.

        Raises:
            ToolchainError: one is not, of a target that was asked for by name.
            UserError: an option cannot be used.
        """
        try:
            is_replay = self._loaded.recipe is not None
            require_here(serving, target, None if is_replay else self._own(serving).options)
        except ToolchainError as error:
            if self._loaded.recipe is not None or target.name in self._request.targets:
                raise
            self.skipped += (Skipped(target=target.name, reason=str(error).rstrip(".")),)
            return False
        return True

    def _foresee(self, serving: Backend, target: TargetProfile) -> None:
        """Refuse what a backend knows cannot be made, before the model is evaluated."""
        foresee = getattr(serving, "foresee", None)
        if foresee is None or self._loaded.recipe is not None:
            return
        [[sample, *_], *_] = self._workshop.feeds(1)
        foresee(target, self._own(serving).options, self._loaded.model.data, sample[0])

    def _tell(self) -> None:
        """Say beforehand how many targets are left out, and which nodes are not expected to run.

        Which targets are left out, and why, the result says.
        """
        if self.skipped:
            self._progress.note(
                f"{len(self.skipped)} of {len(self._loaded.plan.compiled)} targets are "
                "left out for want of their toolchains; the others are made."
            )
        said = ((name, node) for name, (_, found) in self._ready.items() for node in found)
        nodes = alike((name, str(node)) for name, node in said)
        for node, names in nodes[:_TOLD]:
            self._progress.note(f"Not expected to run on {', '.join(names)}: {node}")
        if len(nodes) > _TOLD:
            self._progress.note(f"and {len(nodes) - _TOLD} more nodes; the compiler decides.")

    def _unsupported(self, serving: Backend, target: TargetProfile) -> tuple[Unsupported, ...]:
        model = self._loaded.model
        if model.format != ONNX:
            return ()
        feeds = self._workshop.feeds(1)
        shapes = fixed_shapes(model.inputs, feeds, f"the target {target.name}")
        return unsupported(serving.constraints(target), nodes_of(model, shapes))

    def _compiled(
        self, target: TargetProfile, reference: Lane, outcomes: Judged
    ) -> list[Candidate]:
        made: list[Candidate] = []
        try:
            for offer in self._offers(target, outcomes):
                made.append(self._judged(target, offer, reference, outcomes, tests=len(made)))
                choice = made[-1].choice
                said = "passes its gates." if choice.deployable else choice.reason
                self._progress.note(f"{target.name}, {offer.move}: {said}")
                if made[-1].choice.deployable or not self._can_still_pass(outcomes, len(made)):
                    break
            if not any(candidate.choice.deployable for candidate in made):
                raise _nothing_passes(target, made)
        except EdgemlError as error:
            self.fail(target.name, error)
        except Exception as error:  # noqa: BLE001 -- one backend's fault ends no other target
            self.fail(target.name, _fault(target, error))
        return made

    def _offers(self, target: TargetProfile, outcomes: Judged) -> Iterator[Offer]:
        serving, found = self._ready[target.name]
        folder = self._folder / target.name
        folder.mkdir()
        recipe = self._loaded.recipe
        said = [v for v in recipe.variants if v.target == target.name] if recipe else []
        return serving.offer(
            Job(
                target=target,
                request=self._own(serving),
                loaded=self._loaded,
                workshop=self._workshop,
                reference=outcomes,
                decided=said[0] if said else None,
                unsupported=found,
                folder=folder,
                cache=self._cache,
                progress=self._progress,
                exclusively=self._lock,
            )
        )

    def _judged(
        self, target: TargetProfile, offer: Offer, reference: Lane, outcomes: Judged, *, tests: int
    ) -> Candidate:
        """An offer executed on the evaluation data and decided on."""
        confidence = _confidence(self._request, tests)
        judged, info = self._execute(target, offer, reference)
        gate = metric_gate(
            self._loaded.metric,
            outcomes.outcomes,
            judged.outcomes,
            max_drop=self._request.max_drop,
            confidence=confidence,
        )
        candidate = Candidate(
            target=target,
            lane=Lane(offer.artifact, offer.runtime),
            move=offer.move,
            gates=(gate, *offer.gates),
            judged=judged,
            timing=Timing((), (), (), _counts(offer.report.placement), info),
            verification=offer.verification,
            compiled=offer,
        )
        limits = self._request.limits.within(target.limits)
        accept = self._request.accept_undecided
        made = decided([candidate], limits, confidence=confidence, accept=accept)
        if self._loaded.recipe is not None:
            made = as_decided(made, self._loaded.recipe, accept=accept)
        if not made:
            raise GateFailed(
                f"What is made for {target.name} is not what the recipe decided on.",
                fix="Convert without --recipe.",
            )
        return made[0]

    def _execute(
        self, target: TargetProfile, offer: Offer, reference: Lane
    ) -> tuple[Judged, RuntimeInfo]:
        """What a metric makes of an offer's answers, and what answered."""
        loaded, metric = self._loaded, self._loaded.metric
        inputs = loaded.inputs
        parts = [
            *(EVALUATOR, target.backend, offer.runtime, *offer.origin),
            *(inputs.evaluation, inputs.pipeline, metric.identity, reference.artifact.digest),
            *(self._arena.conditions(reference) if metric.needs_reference else ()),
        ]
        known = self._cache.get("compiled", parts)
        if known is not None:
            return msgspec.msgpack.decode(known, type=tuple[Judged, RuntimeInfo])
        with self._lock, ExitStack() as stack:
            self._progress.step(
                f"Evaluating {offer.move} for {target.name}", len(loaded.evaluation)
            )
            execution = stack.enter_context(offer.execution())
            beside: AbstractContextManager[Execution | None] = nullcontext()
            if metric.needs_reference:
                beside = self._arena.opened(reference)
            compared = stack.enter_context(beside)

            def answer(feeds: Sequence[Tensors]) -> list[tuple[Tensors, Tensors]]:
                outputs = execution.run_each(feeds)
                others: Sequence[Tensors] = feeds if metric.needs_inputs else outputs
                if compared is not None:
                    others = compared.run_each(feeds)
                return list(zip(outputs, others, strict=True))

            advance = self._progress.advance
            judged = evaluate([answer], loaded, is_baseline=False, on_sample=advance)
            found = judged, execution.info
        with suppress(TypeError):  # a plug-in's outcomes may be what no message holds
            self._cache.put("compiled", parts, msgspec.msgpack.encode(found))
        return found

    def _can_still_pass(self, outcomes: Judged, tests: int) -> bool:
        """Whether another offer could be shown to lose too little, by the data there are."""
        gate = metric_gate(
            self._loaded.metric,
            outcomes.outcomes,
            outcomes.outcomes,
            max_drop=self._request.max_drop,
            confidence=_confidence(self._request, tests),
        )
        return gate.result is Verdict.PASS


def _refuse_format(serving: Backend, target: TargetProfile, model: FloatModel) -> None:
    formats = getattr(serving, "formats", (model.format,))
    if model.format not in formats:
        raise ModelError(
            f"{target.name} takes {' and '.join(formats)} models.",
            why=f"{model.path} is {model.format}.",
            fix="Export the model as ONNX from its framework.",
        )


def joined(failures: dict[str, EdgemlError]) -> EdgemlError:
    """The error where every target failed: the only one's own, or all of them in one."""
    first, *others = failures.values()
    if not others:
        return first
    return type(first)(
        f"Nothing could be made for {', '.join(failures)}.",
        why=" ".join(f"{name}: {e.what} {e.why}".rstrip() for name, e in failures.items()),
        fix="; ".join(dict.fromkeys(e.fix.rstrip(".") for e in failures.values() if e.fix)),
    )


def _fault(target: TargetProfile, error: Exception) -> ToolchainError:
    """An error that a backend should have explained."""
    _LOG.debug("the backend %s failed", target.backend, exc_info=error)
    return ToolchainError(
        f"The backend {target.backend} failed for {target.name}.",
        why=f"{type(error).__name__}: {str(error).strip() or 'it says nothing'}.",
        fix="This is a fault of the backend: report it with the model's operators.",
    )


def _confidence(request: Request, tests: int) -> float:
    """Of the next test: each further one on the same data may err half as often."""
    return 1 - (1 - request.confidence) * 0.5**tests


def _counts(placement: Placement | None) -> dict[str, int]:
    if placement is None:
        return {}
    counts = {
        "accelerator": placement.offloaded,
        "cpu": placement.operators - placement.offloaded,
    }
    return {where: count for where, count in counts.items() if count}


def _nothing_passes(target: TargetProfile, made: Sequence[Candidate]) -> GateFailed:
    if not made:
        return GateFailed(f"There is nothing to make for {target.name}.")
    best = min(made, key=lambda c: sum(g.result is Verdict.FAIL for g in c.gates))
    failed: list[GateResult] = [g for g in best.gates if g.result is Verdict.FAIL]
    remedy = best.choice.remedy
    if any(gate.name == "placement" for gate in failed):
        remedy = "Change the nodes that stay on the CPU, or lower --min-offload."
    elif any(gate.name == "accuracy" for gate in failed):
        remedy = "Raise --max-drop, or train the model with quantization in mind."
    return GateFailed(
        f"No variant for {target.name} passes its gates.",
        why=" ".join(
            f"{', '.join(moves)}: {reason}"
            for reason, moves in alike((each.move, each.choice.reason) for each in made)
        ),
        fix=remedy,
        undecided=best.choice.undecided,
    )
