"""What a post-processor is: keys in the release's `[[post]]`, and a reader made from them.

Third parties bring one as a subclass of `PostProcessor`, under the entry point group
`edgeml.postprocessors`; its tag is the `op` in the TOML and the entry point's name:

    class Pose(PostProcessor, frozen=True, kw_only=True, tag="pose"):
        task: ClassVar[str] = "pose"
        joints: int = 17

        def reader(self, settings: Settings) -> Reader: ...
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.pipeline.geometry import IDENTITY, Mapping
from hardware.pipeline.results import Result

Array = NDArray[Any]


class Seen(msgspec.Struct):
    """What the outputs belong to.

    `size` is width and height of the model's picture in pixels, `to_frame` maps its pixels to
    the frame's, `bounds` is what the picture shows of the frame: x1 y1 x2 y2. `at` is the
    monotonic time of capture. `inputs` are what the model was given.
    """

    inputs: Sequence[Array] = ()
    source: str = ""
    at: float = 0.0
    size: tuple[int, int] = (0, 0)
    to_frame: Mapping = IDENTITY
    bounds: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline says beside the post-processor's own keys.

    `threshold` is the site's, the release's or the post-processor's own.
    """

    labels: tuple[str, ...] = ()
    threshold: float = 0.0
    softmax: bool = False
    k: int = 1


Reader = Callable[[Sequence[Array], Seen], Result]


class PostProcessor(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"
):
    """See the module. `uses` names the general steps that may stand beside it."""

    task: ClassVar[str] = ""
    uses: ClassVar[frozenset[str]] = frozenset({"threshold"})
    threshold: ClassVar[float] = 0.5
    is_fraction: ClassVar[bool] = True
    """Whether scores, and so the threshold, lie between 0 and 1."""

    @property
    def highest(self) -> float:
        """The highest threshold that makes sense."""
        return 1.0 if self.is_fraction else math.inf

    def wrong(self, labels: tuple[str, ...]) -> str:
        """Why it cannot be used with these labels; empty where it can."""
        del labels
        return ""

    def reader(self, settings: Settings) -> Reader:
        """Make what reads outputs; it may keep buffers and state, and is used by one thread."""
        raise NotImplementedError


def output(outputs: Sequence[Array], index: int, role: str) -> Array:
    """One output of numbers.

    Raises:
        ModelError: the model has no such output, or it holds no numbers.
    """
    if index >= len(outputs):
        raise misfit(f"The {role} are output {index}, the model has {len(outputs)} outputs")
    found = np.asarray(outputs[index])
    if not np.issubdtype(found.dtype, np.number):
        raise misfit(f"The model's output {index} has no {role}")
    return found


def scores_of(outputs: Sequence[Array], index: int = 0) -> NDArray[np.float32]:
    """An output of scores as float32, in its shape.

    Raises:
        ModelError: it holds no numbers, or one that is none.
    """
    found = output(outputs, index, "scores").astype(np.float32, copy=False)
    finite(found)
    return found


def finite(values: Array) -> None:
    """Refuse NaN and infinity.

    Raises:
        ModelError: there is one.
    """
    if not np.isfinite(values).all():
        raise ModelError("The model's answer is no number.", why="It has NaN or infinity.")


def misfit(why: str) -> ModelError:
    """The error of a model that answers what the pipeline does not read."""
    return ModelError("The pipeline does not fit the model.", why=f"{why}.")


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits along the last axis."""
    likely: NDArray[np.float32] = np.exp(scores - scores.max(axis=-1, keepdims=True))
    likely /= likely.sum(axis=-1, keepdims=True)
    return likely
