"""What a pipeline is: the TOML in a release, parsed strictly into frozen values.

    version = 1
    task = "classification"
    labels = ["cat", "dog"]
    [region]                          # the part of a camera's frame, in fractions of it
    x = 0.4
    y = 0.3
    width = 0.2
    height = 0.4
    [[pre]]                           # steps before the model, in order
    op = "resize"
    width = 28
    height = 28
    [[post]]                          # steps after it
    op = "softmax"
    [site]
    allow = ["region", "threshold"]   # what a site may set

Everything behind the region is proven by the golden set; the region itself belongs to the
site, so evaluation data and golden inputs are images of the region.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from edgeml.errors import ModelError
from edgeml.toml_lines import Path, line_of
from hardware.runtimes.interface import TensorSpec

if TYPE_CHECKING:
    from hardware.pipeline.runner import PipelineRunner

PIPELINE_VERSION = 1
MAX_PIPELINE_BYTES = 1 << 20

Fraction = Annotated[float, Meta(ge=0, le=1)]
Pixels = Annotated[int, Meta(ge=1, le=8192)]
# Bounds that keep float32 arithmetic finite; they refuse NaN and infinity too.
Factor = Annotated[float, Meta(ge=-1e6, le=1e6)]
Deviation = Annotated[float, Meta(ge=1e-6, le=1e6)]


class Region(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the frame, in fractions of its width and height."""

    x: Fraction = 0.0
    y: Fraction = 0.0
    width: Annotated[float, Meta(gt=0, le=1)] = 1.0
    height: Annotated[float, Meta(gt=0, le=1)] = 1.0


class _Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """A step; `op` in the TOML names which."""


class Locate(_Step, frozen=True, kw_only=True, tag="locate"):
    """Find the object: Otsu threshold, the largest component that touches no border.

    Crops a square around it, larger by `margin` of its longer side on each side. Components
    smaller than `min_area` of the image are noise; with none left the frame is empty.
    """

    polarity: Literal["bright", "dark"] = "bright"
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.2
    min_area: Fraction = 0.01


class Colour(_Step, frozen=True, kw_only=True, tag="colour"):
    """Convert colours; images come in as BGR or as gray."""

    to: Literal["gray", "rgb", "bgr"]


class Resize(_Step, frozen=True, kw_only=True, tag="resize"):
    """Resize to the model's size: area when shrinking, linear when growing."""

    width: Pixels
    height: Pixels


class Scale(_Step, frozen=True, kw_only=True, tag="scale"):
    """(x * factor - mean) / std in float32; mean and std of one value or one a channel."""

    factor: Factor = 1.0
    mean: tuple[Factor, ...] = (0.0,)
    std: tuple[Deviation, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Hold mean and std to one value, or three for the channels of a colour."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {1, 3}:
                raise ValueError(f"{name} has {len(values)} values, wanted are 1 or 3")


class Layout(_Step, frozen=True, kw_only=True, tag="layout"):
    """Order the axes as the model wants them, with a batch axis of one."""

    to: Literal["NCHW", "NHWC", "NHW"]


class Softmax(_Step, frozen=True, kw_only=True, tag="softmax"):
    """Turn logits into probabilities."""


class TopK(_Step, frozen=True, kw_only=True, tag="top_k"):
    """Keep the `k` best labels."""

    k: Annotated[int, Meta(ge=1, le=1000)] = 1


class Threshold(_Step, frozen=True, kw_only=True, tag="threshold"):
    """A result at or above `value` is confident; a site may be allowed to set it."""

    value: Fraction


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site may set."""

    allow: tuple[Literal["region", "threshold"], ...] = ()


class SiteParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site did set; None leaves the release's own value."""

    region: Region | None = None
    threshold: Fraction | None = None


PreStep = Locate | Colour | Resize | Scale | Layout
PostStep = Softmax | TopK | Threshold


class Pipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline's definition; `runner` makes the thing that executes it."""

    version: Literal[1]
    task: Literal["classification"] = "classification"
    labels: Annotated[tuple[str, ...], Meta(min_length=1)]
    region: Region | None = None
    pre: tuple[PreStep, ...] = ()
    post: tuple[PostStep, ...] = ()
    site: Site = Site()

    def runner(
        self, inputs: Sequence[TensorSpec], site: Mapping[str, Any] | None = None
    ) -> "PipelineRunner":
        """Make the runner for a model with these inputs, with what the site sets.

        Raises:
            ModelError: the steps do not make the tensor that the model wants, or the site
                sets what the release does not let it set.
        """
        from hardware.pipeline.runner import PipelineRunner

        return PipelineRunner(self, inputs, self.site_parameters(site or {}))

    def site_parameters(self, site: Mapping[str, Any]) -> SiteParameters:
        """Check what a site sets against what this release lets it set."""
        for name in site:
            if name not in self.site.allow:
                allowed = ", ".join(self.site.allow) or "nothing"
                raise ModelError(
                    f"A site may not set {name}.", why=f"This release allows {allowed}."
                )
        try:
            return msgspec.convert(dict(site), SiteParameters)
        except msgspec.ValidationError as error:
            raise ModelError("The site's parameters are not valid.", why=f"{error}.") from error


def parse(data: bytes) -> Pipeline:
    """Parse a pipeline's TOML.

    Raises:
        ModelError: it is not TOML, or has an unknown or wrong key; names line and key.
    """
    what = "The pipeline cannot be used."
    if len(data) > MAX_PIPELINE_BYTES:
        raise ModelError(what, why=f"It has {len(data)} bytes; {MAX_PIPELINE_BYTES} are allowed.")
    try:
        text = data.decode()
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a ValueError
        raise ModelError(what, why=f"It is not valid TOML: {error}.") from error
    try:
        pipeline = msgspec.convert(tree, Pipeline)
    except msgspec.ValidationError as error:
        raise ModelError(what, why=_explain(str(error), tree, text)) from error
    found = _misplaced(pipeline)
    if found:
        raise ModelError(what, why=f"Line {line_of(text, found[0])}: {found[1]}.")
    return pipeline


def _misplaced(pipeline: Pipeline) -> tuple[Path, str] | None:
    """The first step that cannot stand where it does, and why."""
    seen: list[type] = []
    for index, step in enumerate(pipeline.pre):
        name, where = _op(step), ("pre", index, "op")
        if Layout in seen:
            return where, f"{name} stands behind layout, which must be the last step"
        if isinstance(step, Locate) and Scale in seen:
            return where, "locate stands behind scale, but looks at the image"
        if type(step) in seen and isinstance(step, Locate | Colour):
            return where, f"{name} is there twice"
        seen.append(type(step))
    seen = []
    for index, result in enumerate(pipeline.post):
        name, where = _op(result), ("post", index, "op")
        if type(result) in seen:
            return where, f"{name} is there twice"
        if isinstance(result, Softmax) and seen:
            return where, "softmax must be the first step after the model"
        seen.append(type(result))
    return None


def _op(step: msgspec.Struct) -> str:
    return str(step.__struct_config__.tag)


_STEPS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "pre": get_args(PreStep),
    "post": get_args(PostStep),
}
_TABLES: dict[str, type[msgspec.Struct]] = {"region": Region, "site": Site}


def _explain(message: str, tree: dict[str, Any], text: str) -> str:
    """Add the line and what is known to msgspec's message, which ends in `$.pre[1].width`."""
    found = re.search(r" - at `\$\.?([^`]*)`$", message)
    parts = re.findall(r"\w+", found[1]) if found else []
    path: Path = tuple(int(part) if part.isdigit() else part for part in parts)
    unknown = re.search(r"unknown field `(.*?)`( - at|$)", message)
    line = line_of(text, (*path, unknown[1]) if unknown else path)
    sentence = f"Line {line}: {message}." if line else f"{message}."
    known = _known(path, tree, unknown=unknown is not None)
    return f"{sentence} Known are: {', '.join(known)}." if known else sentence


def _known(path: Path, tree: dict[str, Any], *, unknown: bool) -> tuple[str, ...]:
    """The keys known in the table at `path`, or the steps where `op` itself is wrong."""
    table: type[msgspec.Struct] | None = _TABLES.get(str(path[0])) if path else Pipeline
    steps = _STEPS.get(str(path[0]), ()) if path else ()
    named = [str(step.__struct_config__.tag) for step in steps]
    if path[2:] == ("op",):
        return tuple(named)
    if not unknown or len(path) > 2:  # noqa: PLR2004 -- ("pre", 1) is the path of a step
        return ()
    if steps and isinstance(path[-1], int):
        table = steps[named.index(tree[str(path[0])][path[-1]]["op"])]
    keys = () if table is None else tuple(f.encode_name for f in msgspec.structs.fields(table))
    return ("op", *keys) if steps else keys
