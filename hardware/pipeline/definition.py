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
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgeml.errors import ModelError
from hardware.runtimes.interface import TensorSpec

if TYPE_CHECKING:
    from hardware.pipeline.runner import PipelineRunner

PIPELINE_VERSION = 1
MAX_PIPELINE_BYTES = 1 << 20

Fraction = Annotated[float, Meta(ge=0, le=1)]
Pixels = Annotated[int, Meta(ge=1, le=8192)]


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

    factor: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


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
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelError(what, why=f"It is not valid TOML: {error}.") from error
    try:
        return msgspec.convert(tree, Pipeline)
    except msgspec.ValidationError as error:
        raise ModelError(what, why=_explain(str(error), text), fix=_FIX) from error


_OPS = ("locate", "colour", "resize", "scale", "layout", "softmax", "top_k", "threshold")
_FIX = f"Known steps: {', '.join(_OPS)}; docs/pipeline.md describes their keys."


def _explain(message: str, text: str) -> str:
    """Add the line to msgspec's message, which ends in a path such as `$.pre[1].width`."""
    found = re.search(r"at `\$\.?([^`]*)`", message)
    keys = re.findall(r"[A-Za-z_]\w*|\[\d+\]", found[1]) if found else []
    unknown = re.search(r"unknown field `(\w+)`", message)
    invalid = re.search(r"Invalid value '(\w+)'", message)
    culprit = unknown or invalid
    line = _line_of(keys, culprit[1] if culprit else "", text)
    return f"Line {line}: {message}." if line else f"{message}."


def _line_of(keys: list[str], last: str, text: str) -> int | None:
    """The line of a key: the n-th `[[table]]` of its path, then the key's own below it."""
    lines = text.splitlines()
    at = 0
    names = [key for key in keys if not key.startswith("[")]
    index = next((int(key[1:-1]) for key in keys if key.startswith("[")), None)
    if names and index is not None:
        heads = [i for i, row in enumerate(lines) if row.strip().startswith(f"[[{names[0]}]]")]
        if index < len(heads):
            at = heads[index]
    elif len(names) > 1:
        at = next((i for i, row in enumerate(lines) if row.strip() == f"[{names[0]}]"), 0)
    wanted = last or (names[-1] if names else "")
    for number in range(at, len(lines)):
        row = lines[number].split("#")[0]
        if wanted and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", row):
            return number + 1
    return at + 1 if keys else None
