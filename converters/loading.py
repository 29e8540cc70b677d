"""Load what a conversion starts from: model, pipeline, data, recipe, and this machine."""

from itertools import chain, islice

import msgspec

from cloud_sync.release import digest_of
from converters.axes import fix_axes
from converters.backends import takes_quantized
from converters.dataset import Dataset, each_once, open_dataset, refuse_overlap
from converters.fusing import CHECKED_SAMPLES, check_fused, fuse, refuse_metric
from converters.metrics import Metric, find_metric
from converters.model import FloatModel, check_float, check_inputs, load_model
from converters.plan import Plan, plan
from converters.progress import Progress
from converters.recipe import Inputs, Recipe, read_recipe
from converters.request import Request
from converters.task import DirectTask, PipelineTask, Task, load_pipeline
from converters.tools import tool_versions, toolchain_versions
from edgeml.errors import ModelError
from hardware.capabilities import Capabilities
from hardware.probes import probe


class Unfused(msgspec.Struct, frozen=True):
    """Model and task as they were given, before arithmetic moved from one to the other."""

    model: FloatModel
    task: Task


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """All inputs of a conversion, checked, and what this machine can make of them.

    `model` and `pipeline` are what was made of the given files, by `dims`, the free axes that
    were fixed, and by taking arithmetic of the pipeline into the model; then `unfused` is what
    they were before that.
    """

    model: FloatModel
    pipeline: bytes | None
    task: Task
    metric: Metric
    calibration: Dataset
    evaluation: Dataset
    recipe: Recipe | None
    host: Capabilities
    plan: Plan
    dims: dict[str, int] = {}
    unfused: Unfused | None = None

    @property
    def inputs(self) -> Inputs:
        """Their digests."""
        return Inputs(
            model=self.model.digest,
            pipeline=digest_of(self.pipeline) if self.pipeline else "",
            calibration=self.calibration.digest,
            evaluation=self.evaluation.digest,
            dims=dict(self.dims),
            fused=self.unfused is not None,
        )


def load(request: Request, progress: Progress) -> Loaded:
    """Read, check and describe everything; nothing is computed yet.

    Raises:
        EdgemlError: what of the request, the model, the data or the recipe cannot be used.
    """
    progress.step("Reading the model and the data")
    recipe = read_recipe(request.recipe) if request.recipe else None
    names = tuple(v.target for v in recipe.variants) if recipe else request.targets
    host = probe()
    dims = recipe.inputs.dims if recipe else request.dims
    model = fix_axes(load_model(request.model), dims)
    check_inputs(model)
    planned = plan(
        names,
        host,
        request.runtimes,
        model_format=model.format,
        decided={v.runtime for v in recipe.variants} if recipe else None,
    )
    if planned.targets or not all(takes_quantized(t.backend) for t in planned.compiled):
        check_float(model)
    pipeline: bytes | None = None
    task: Task = DirectTask(model)
    if request.pipeline:
        definition, pipeline = load_pipeline(request.pipeline)
        task = PipelineTask(definition, model)
    names = tuple(spec.name for spec in model.inputs)
    calibration = open_dataset(request.calibration, names, task.labels)
    evaluation = each_once(open_dataset(request.evaluation, names, task.labels))
    task.check(calibration)
    task.check(evaluation)
    refuse_overlap(calibration, evaluation)
    metric = find_metric(request.metric, labels=task.labels)
    unfused: Unfused | None = None
    if (recipe.inputs.fused if recipe else request.fuse) and request.pipeline:
        unfused = Unfused(model, task)
        refuse_metric(metric)
        fused = fuse(model, definition)
        parts = (islice(data, CHECKED_SAMPLES) for data in (calibration, evaluation))
        check_fused(fused, model, definition, chain.from_iterable(parts))
        model, pipeline, task = fused.model, fused.data, PipelineTask(fused.pipeline, fused.model)
        progress.note(f"In the model now: {', '.join(fused.steps)}. It takes {model.inputs[0]}.")
    loaded = Loaded(
        model=model,
        pipeline=pipeline,
        task=task,
        metric=metric,
        calibration=calibration,
        evaluation=evaluation,
        recipe=recipe,
        host=host,
        plan=planned,
        dims=dims,
        unfused=unfused,
    )
    if recipe:
        _refuse_other_inputs(recipe, loaded.inputs)
        for tool, version in (tool_versions() | toolchain_versions()).items():
            if recipe.tools.get(tool, version) != version:
                progress.note(
                    f"The recipe was made with {tool} {recipe.tools[tool]}, here is {version}: "
                    "the release's digest may differ."
                )
    return loaded


def _refuse_other_inputs(recipe: Recipe, inputs: Inputs) -> None:
    wanted, given = msgspec.to_builtins(recipe.inputs), msgspec.to_builtins(inputs)
    for part, digest in wanted.items():
        if given[part] != digest:
            raise ModelError(
                f"The recipe is for another {part}.",
                why=f"It names {digest or 'none'}, this one is {given[part] or 'none'}.",
                fix="Give what the recipe was made with, or convert without --recipe.",
            )
