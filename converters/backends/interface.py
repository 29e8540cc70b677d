"""What makes artifacts for compiled targets: one small protocol, one folder a backend.

CPU targets race: files of several kinds run here beside each other and the fastest that keeps the
metric wins. A target that a compiler serves (an NPU, an FPGA) is not here, so nothing is raced. A
backend *offers* artifacts, the most promising first; the converter executes each in the strongest
way that the backend has, on the evaluation data, judges it by the gates, and takes the first that
passes them all:

    class Mine:
        name = "mine"
        toolchains = ("mine-compiler",)

        def constraints(self, target): return RULES
        def offer(self, job):
            for rules in (job.decided.rules,) if job.decided else (GOOD, SAFER):
                path = compiled_with(rules, job.folder)
                yield Offer(artifact=..., execution=lambda: opened(path), ...)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from cloud_sync.evidence import CompileReport, GateResult, Verification
from converters.artifact import Artifact
from converters.backends.support import Constraint, Unsupported
from converters.cache import Cache
from converters.evaluation import Judged
from converters.loading import Loaded
from converters.progress import Progress
from converters.recipe import VariantRecipe
from converters.request import Request
from converters.toolchains.store import require_all
from edgeml.errors import ModelError
from hardware.capabilities import RuntimeInfo
from hardware.profiles import TargetProfile
from hardware.requirements import Requirements

if TYPE_CHECKING:
    from converters.workshop import Workshop

Tensors = Sequence[np.ndarray]


class Execution(Protocol):
    """Something that answers as the artifact does: a simulator, the file before it was compiled."""

    @property
    def info(self) -> RuntimeInfo:
        """What answers, in which version."""
        ...

    def run_each(self, feeds: Sequence[Tensors]) -> Sequence[Tensors]:
        """The outputs for each feed: tensors in the order of the float model's inputs and outputs.

        Raises:
            ModelError: it failed on one.
        """
        ...


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """How far a backend's artifacts are checked here: what is executed, and which level that is."""

    executes: str
    verification: Verification


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled artifact, and how it is executed here.

    Attributes:
        artifact: the file for the device, with the rules that it follows from; its `key` is unique
            among the target's offers, its `format` the suffix (`onnx`, `tflite`, `rknn`, `bit`).
        runtime: what runs it on the device.
        move: how it was made, for people (`static int8, extremes`).
        verification: how far `execution` proves it.
        execution: opens what answers in the artifact's place.
        origin: all that its answers follow from (digest of what is executed, tools' versions):
            judgements are kept by it.
        executed_on: the instruction set of the recording (`x86-64 htp simulator`).
        tolerance: what its outputs may differ from the recorded ones on the device, as a share of
            the largest output; 0 asks for the same bits.
        same_everywhere: no processor changes its outputs: `tolerance` holds on every device.
        settings: what the compiler was told beyond the rules and the profile; kept in the recipe
            and given back as `job.decided.settings`.
        requires: what a device needs; None: the profile's requirements for `runtime`.
        gates: what the backend decided itself: placement, resources, timing, equality of RTL.
        report: what the compiler said, with its estimates.
        files: more of the variant, by role: file name and path (memory images, register map).
        documents: of the conversion, not of the variant: names and paths for the evidence.
        tools: name and version of what made it.
    """

    artifact: Artifact
    runtime: str
    move: str
    verification: Verification
    execution: Callable[[], AbstractContextManager[Execution]]
    origin: tuple[str, ...]
    report: CompileReport
    executed_on: str = ""
    tolerance: float = 0.0
    same_everywhere: bool = False
    settings: dict[str, str | int | float | bool] = {}
    requires: Requirements | None = None
    gates: tuple[GateResult, ...] = ()
    files: dict[str, tuple[str, Path]] = {}
    documents: dict[str, Path] = {}
    tools: dict[str, str] = {}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend is given for one target.

    Attributes:
        target: whose `settings` are the backend's.
        request: `request.options` are what the user told backends: `--option architecture=engine`.
        loaded: model, data, task, metric.
        workshop: `feeds(limit)` gives calibration samples as the model takes them, `float` and
            `litert.float` the float model's files, `litert.make(rules)` int8 ones. It serves one
            caller at a time: hold `exclusively` around it.
        reference: the float model's outcomes on the evaluation data.
        decided: of a replay, what the recipe says; then one offer, the one that follows from it.
        unsupported: what the constraints say will not run on the accelerator.
        folder: for files; this job's alone, gone when the conversion ends.
        cache, progress: as everywhere in the converter.
        exclusively: a lock that jobs share, since several run at the same time.
    """

    target: TargetProfile
    request: Request
    loaded: Loaded
    workshop: "Workshop"
    reference: Judged
    decided: VariantRecipe | None
    unsupported: tuple[Unsupported, ...]
    folder: Path
    cache: Cache
    progress: Progress
    exclusively: AbstractContextManager[object]


class Backend(Protocol):
    """Makes artifacts for the targets whose profile names it.

    It may have a `proof`, a `Proof` that `edgeml targets` shows; `optional_toolchains`, which some
    options need; `formats`, those of models that it takes, where these are not all; `options`,
    those that it takes, by name with what each means, or their names alone, so that others are
    refused and it is given its own alone; a method `require` without arguments, which raises a
    ToolchainError where something other than a toolchain is missing; a method `check(target,
    options)`, which raises what is wrong with options, or missing for them, before any work;
    `foresee(target, options, model, sample)`, which raises what makes a model impossible there,
    before it is evaluated (of an ONNX file's bytes, and its first input without the batch); and
    `weigh(target, options, model)`, the alternatives that `edgeml targets --model` shows.
    """

    name: str
    toolchains: tuple[str, ...]
    """Those that must be installed before anything is done."""

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:
        """What the target runs: by ONNX operator its constraints; `*` for those of all.

        An operator that is no key does not run there.
        """
        ...

    def offer(self, job: Job) -> Iterator[Offer]:
        """Artifacts, the most promising first; the next is asked for where one fails a gate.

        Raises:
            ModelError: the model cannot be compiled for this target; says why and what to do.
            ToolchainError: a toolchain failed.
        """
        ...


def require_here(
    serving: Backend, target: TargetProfile, options: Mapping[str, str] | None
) -> None:
    """Check that all that a backend needs for a target is on this machine.

    Args:
        serving: the backend.
        target: one of its targets.
        options: its own; None on a replay, whose recipe has them.

    Raises:
        ToolchainError: it is not; all toolchains that are missing are named.
        UserError: an option cannot be used.
    """
    require_all(serving.toolchains)
    getattr(serving, "require", lambda: None)()
    if options is not None:
        getattr(serving, "check", lambda *_: None)(target, options)


def refusal(job: Job, compiler: str, reply: Mapping[str, Any], more: str = "") -> ModelError:
    """The error of a model that a toolchain's compiler refuses.

    Args:
        job: what was to be made.
        compiler: its name, for people.
        reply: the toolchain's, with `refused`, and `log`, the sentence that says where that is.
        more: what else is known of the reason.
    """
    return ModelError(
        f"{job.loaded.model.path} cannot be compiled for {job.target.name}.",
        why=f"{compiler}: {reply['refused'].rstrip('.')}.{more} {reply['log']}",
        fix=f"`edgeml targets {job.target.name}` shows what this target runs.",
    )
