"""What a pipeline is: the TOML in a release as frozen values; `parsing` reads it.

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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgeml.errors import ModelError
from hardware.pipeline.postprocessors import Classify, PostProcessor
from hardware.runtimes.interface import TensorSpec

if TYPE_CHECKING:
    from hardware.pipeline.runner import PipelineRunner

MAX_PIPELINE_BYTES = 1 << 20

Fraction = Annotated[float, Meta(ge=0, le=1)]
Score = Annotated[float, Meta(ge=0, le=1e9)]
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


class Letterbox(_Step, frozen=True, kw_only=True, tag="letterbox"):
    """Resize to the model's size with the aspect kept; bars of one gray fill the rest."""

    width: Pixels
    height: Pixels
    fill: Annotated[int, Meta(ge=0, le=255)] = 114
    align: Literal["centre", "corner"] = "centre"


class Mfcc(_Step, frozen=True, kw_only=True, tag="mfcc"):
    """Mel-frequency cepstral coefficients of audio: float32 [frames, coefficients, 1].

    Frames of `frame` samples every `hop`, Hann window, `bands` mel bands from `low` to `high`
    hertz, natural logarithm, cosine transform as HTK scales it. `peak` divides by the largest
    sample of the window first, `full_scale` by the largest that 16 bits hold.
    """

    rate: Annotated[int, Meta(ge=1000, le=192_000)] = 16_000
    samples: Annotated[int, Meta(ge=1, le=1 << 22)] = 16_000
    frame: Annotated[int, Meta(ge=2, le=1 << 16)] = 480
    hop: Annotated[int, Meta(ge=1, le=1 << 16)] = 320
    bands: Annotated[int, Meta(ge=1, le=512)] = 40
    low: Annotated[float, Meta(ge=0, le=96_000)] = 20.0
    high: Annotated[float, Meta(gt=0, le=96_000)] = 4000.0
    coefficients: Annotated[int, Meta(ge=1, le=512)] = 10
    normalise: Literal["peak", "full_scale"] = "peak"

    def __post_init__(self) -> None:
        """Hold the numbers to what they mean together."""
        if not self.low < self.high <= self.rate / 2:
            raise ValueError(f"high is {self.high:g}, wanted is above low and up to half the rate")
        if self.coefficients > self.bands:
            raise ValueError(f"{self.bands} bands have no {self.coefficients} coefficients")
        if self.frame > self.samples:
            raise ValueError(f"a frame of {self.frame} does not fit into {self.samples} samples")


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
    """A result at or above `value` is confident; a site may be allowed to set it.

    Scores lie between 0 and 1, but for an anomaly's.
    """

    value: Score


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site may set."""

    allow: tuple[Literal["region", "threshold"], ...] = ()


class SiteParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site did set; None leaves the release's own value."""

    region: Region | None = None
    threshold: Score | None = None


PreStep = Locate | Colour | Resize | Letterbox | Mfcc | Scale | Layout
PostStep = Softmax | TopK | Threshold | PostProcessor


class Pipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline's definition; `runner` makes the thing that executes it.

    `input` says what a frame is: an image, audio samples, or a tensor that is nearly the model's
    own input. `post` holds a post-processor and the general steps beside it; a classification
    needs none.
    """

    version: Literal[1]
    task: str = "classification"
    input: Literal["image", "audio", "tensor"] = "image"
    labels: tuple[str, ...] = ()
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

    @property
    def processor(self) -> PostProcessor:
        """What reads the outputs."""
        return next((step for step in self.post if isinstance(step, PostProcessor)), Classify())

    def site_parameters(self, site: Mapping[str, Any]) -> SiteParameters:
        """Check what a site sets against what this release lets it set."""
        for name in site:
            if name not in self.site.allow:
                allowed = ", ".join(self.site.allow) or "nothing"
                raise ModelError(
                    f"A site may not set {name}.", why=f"This release allows {allowed}."
                )
        what = "The site's parameters are not valid."
        try:
            found = msgspec.convert(dict(site), SiteParameters)
        except msgspec.ValidationError as error:
            raise ModelError(what, why=f"{error}.") from error
        if found.threshold is not None and found.threshold > self.processor.highest:
            raise ModelError(
                what, why=f"The threshold is {found.threshold:g}, a score is at most 1."
            )
        return found
