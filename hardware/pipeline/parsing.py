"""Reads a pipeline's TOML strictly: every mistake is named with its line and key."""

import pathlib
import re
import tomllib
from typing import Any, Union, get_args

import msgspec

from edgeml.errors import ModelError
from edgeml.toml_lines import Path, line_of
from hardware.pipeline.definition import (
    MAX_PIPELINE_BYTES,
    Colour,
    Layout,
    Letterbox,
    Locate,
    Mfcc,
    Pipeline,
    PreStep,
    Region,
    Resize,
    Scale,
    Site,
    Softmax,
    Threshold,
    TopK,
)
from hardware.pipeline.postprocessors import OURS, PostProcessor, find

WHAT = "The pipeline cannot be used."

Steps = tuple[type[msgspec.Struct], ...]

_IMAGE_ONLY = (Locate, Colour, Resize, Letterbox)
_TABLES: dict[str, type[msgspec.Struct]] = {"region": Region, "site": Site}
_GENERAL: Steps = (Softmax, TopK, Threshold)


def parse(data: bytes) -> Pipeline:
    """Parse a pipeline's TOML.

    Raises:
        ModelError: it is not TOML, or has an unknown or wrong key; names line and key.
        DeviceError: a post-processor's plug-in cannot be loaded.
    """
    if len(data) > MAX_PIPELINE_BYTES:
        raise ModelError(WHAT, why=f"It has {len(data)} bytes; {MAX_PIPELINE_BYTES} are allowed.")
    try:
        text = data.decode()
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a ValueError
        raise ModelError(WHAT, why=f"It is not valid TOML: {error}.") from error
    steps = {"pre": get_args(PreStep), "post": _post_steps(tree.get("post"))}
    # The post-processors are known only now, so they are converted apart.
    after = msgspec.defstruct("After", [("post", tuple[Union[steps["post"]], ...], ())])  # type: ignore[valid-type]  # noqa: UP007
    try:
        pipeline = msgspec.convert({k: v for k, v in tree.items() if k != "post"}, Pipeline)
        post = msgspec.convert({"post": tree.get("post", [])}, after)
    except msgspec.ValidationError as error:
        raise ModelError(WHAT, why=_explain(str(error), tree, text, steps)) from error
    pipeline = msgspec.structs.replace(pipeline, post=post.post)  # type: ignore[attr-defined]
    found = _misplaced_before(pipeline) or _misplaced_after(pipeline) or _misused(pipeline)
    if found:
        line = line_of(text, found[0])
        place = f"Line {line}: " if line else ""
        raise ModelError(WHAT, why=f"{place}{found[1]}.")
    return pipeline


def with_labels(data: bytes, folder: pathlib.Path) -> bytes:
    """Put the labels of `labels_file`, one a line, in the place of that key.

    A release's pipeline is one blob; the file is read where the release is made.

    Raises:
        ModelError: there is no such file beside the pipeline, or it is no text.
    """
    try:
        tree = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return data  # `parse` says what is wrong with it
    name = tree.get("labels_file")
    if not isinstance(name, str):
        return data
    try:
        lines = (folder / name).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"The labels in {folder / name} cannot be read.", why=f"{error}."
        ) from None
    labels = lines[:-1] if lines[-1] == "" else lines
    text = data.decode()
    at = line_of(text, ("labels_file",))
    rows = text.split("\n")
    # A JSON string of ASCII is a TOML string; a carriage return is an end of line, no label.
    listed = ", ".join(msgspec.json.encode(label.rstrip("\r")).decode() for label in labels)
    rows[(at or 1) - 1] = f"labels = [{listed}]"
    return "\n".join(rows).encode()


def _post_steps(post: Any) -> Steps:
    """The general steps, our post-processors, and those that plug-ins bring for this pipeline."""
    named = [step.get("op") for step in post if isinstance(step, dict)] if _is_list(post) else []
    theirs = {name: find(name) for name in named if isinstance(name, str) and name not in OURS}
    return (*_GENERAL, *OURS.values(), *(kind for kind in theirs.values() if kind is not None))


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _misplaced_before(pipeline: Pipeline) -> tuple[Path, str] | None:
    """The first step before the model that cannot stand where it does, and why."""
    seen: list[type] = []
    for index, step in enumerate(pipeline.pre):
        name, where = _op(step), ("pre", index, "op")
        if isinstance(step, _IMAGE_ONLY) and pipeline.input != "image":
            return where, f"{name} is for images, the input is {pipeline.input}"
        if isinstance(step, Mfcc) and (pipeline.input != "audio" or seen):
            return where, "mfcc must be the first step, of audio"
        if Layout in seen:
            return where, f"{name} stands behind layout, which must be the last step"
        if isinstance(step, Locate) and Scale in seen:
            return where, "locate stands behind scale, but looks at the image"
        if type(step) in seen and isinstance(step, Locate | Colour | Letterbox):
            return where, f"{name} is there twice"
        seen.append(type(step))
    return None


def _misplaced_after(pipeline: Pipeline) -> tuple[Path, str] | None:
    """The first step behind the model that cannot stand where it does, and why."""
    seen: list[type] = []
    for index, result in enumerate(pipeline.post):
        name, where = _op(result), ("post", index, "op")
        if type(result) in seen:
            return where, f"{name} is there twice"
        if isinstance(result, Softmax) and seen:
            return where, "softmax must be the first step after the model"
        if isinstance(result, PostProcessor) and any(issubclass(k, PostProcessor) for k in seen):
            return where, f"{name} is a second post-processor"
        seen.append(type(result))
    return None


def _misused(pipeline: Pipeline) -> tuple[Path, str] | None:
    """What the post-processor cannot use, and why."""
    processor = pipeline.processor
    index = pipeline.post.index(processor) if processor in pipeline.post else -1
    if pipeline.task != processor.task:
        if index < 0:
            able = sorted(name for name, kind in OURS.items() if kind.task == pipeline.task)
            return ("task",), (
                f"a {pipeline.task} needs a post-processor: {', '.join(able)}"
                if able
                else f"no post-processor is named for the task {pipeline.task!r}"
            )
        return ("post", index, "op"), (
            f"{_op(processor)} makes a {processor.task}, the task is {pipeline.task!r}"
        )
    wrong = processor.wrong(pipeline.labels)
    if wrong:
        return ("labels",) if index < 0 else ("post", index, "op"), wrong
    if pipeline.region is not None and pipeline.input != "image":
        return ("region",), f"a region is of an image, the input is {pipeline.input}"
    for at, step in enumerate(pipeline.post):
        where = ("post", at, "op")
        if isinstance(step, _GENERAL) and _op(step) not in processor.uses:
            return where, f"{_op(processor)} has no use for {_op(step)}"
        if isinstance(step, Threshold) and step.value > processor.highest:
            return ("post", at, "value"), f"value is {step.value:g}, a score is at most 1"
    return None


def _op(step: msgspec.Struct) -> str:
    return str(step.__struct_config__.tag)


def _explain(message: str, tree: dict[str, Any], text: str, steps: dict[str, Steps]) -> str:
    """Add the line and what is known to msgspec's message, which ends in `$.pre[1].width`."""
    found = re.search(r" - at `\$\.?([^`]*)`$", message)
    parts = re.findall(r"\w+", found[1]) if found else []
    path: Path = tuple(int(part) if part.isdigit() else part for part in parts)
    unknown = re.search(r"unknown field `(.*?)`( - at|$)", message)
    line = line_of(text, (*path, unknown[1]) if unknown else path)
    sentence = f"Line {line}: {message}." if line else f"{message}."
    known = _known(path, tree, steps, unknown=unknown is not None)
    return f"{sentence} Known are: {', '.join(known)}." if known else sentence


def _known(
    path: Path, tree: dict[str, Any], steps: dict[str, Steps], *, unknown: bool
) -> tuple[str, ...]:
    """The keys known in the table at `path`, or the steps where `op` itself is wrong."""
    table: type[msgspec.Struct] | None = _TABLES.get(str(path[0])) if path else Pipeline
    here = steps.get(str(path[0]), ()) if path else ()
    named = [str(step.__struct_config__.tag) for step in here]
    if path[2:] == ("op",):
        return tuple(named)
    if not unknown or len(path) > 2:  # noqa: PLR2004 -- ("pre", 1) is the path of a step
        return ()
    if here and isinstance(path[-1], int):
        table = here[named.index(tree[str(path[0])][path[-1]]["op"])]
    keys = () if table is None else tuple(f.encode_name for f in msgspec.structs.fields(table))
    return ("op", *keys) if here else keys
