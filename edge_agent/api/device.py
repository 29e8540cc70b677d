"""What the local API asks of the agent: the running models, an inference, a look at a frame."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from numpy.typing import NDArray

from cloud_sync.messages import ReportedSource
from hardware.pipeline import Pipeline, Region
from hardware.runtimes import TensorSpec


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that takes frames now; `stuck_s` is how long its inference has been stuck.

    `duty` is the share of its time that it may infer, less than 1 on a device that is too hot.
    """

    name: str
    version: str
    release: str
    variant: str
    runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    stuck_s: float = 0.0
    duty: float = 1.0


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that was inferred, copied for whoever asked, with what was made of it.

    `image` is uint8 HxW or HxWx3 (BGR); `result` is what the pipeline read, None where it
    located nothing; `region` is the part of the frame that was looked at, None for all of it.
    """

    source: str
    index: int
    captured: float
    image: NDArray[Any]
    result: Any
    pipeline: Pipeline
    region: Region | None = None


class Device(Protocol):
    """The agent as the local API sees it. Any thread may call."""

    def models(self) -> tuple[ServedModel, ...]:
        """What takes frames now."""
        ...

    def infer(
        self, model: str, tensors: Sequence[NDArray[Any]], timeout_s: float
    ) -> list[NDArray[Any]]:
        """Run tensors through a model's session between two of its frames; outputs are copies.

        Raises:
            DeviceError: the model does not run, is stuck, or had no time.
            ModelError: the model failed on them.
        """
        ...

    def watch(self, model: str, timeout_s: float) -> Watched | None:
        """The next frame of a model that is done; None where none came in time."""
        ...

    def measure(self, model: str, metrics: Mapping[str, Sequence[float]]) -> None:
        """Report what a program measured of a model with its next telemetry window.

        Raises:
            UserError: these are too many metrics.
            DeviceError: the model does not run.
        """
        ...


class PushSource(Protocol):
    """A source whose frames the local API brings."""

    def push(self, image: NDArray[Any], captured_at: float | None = None) -> str:
        """Leave a frame; says `accepted`, `replaced` (an older one) or `refused`."""
        ...


Sources = Callable[[], Mapping[str, ReportedSource]]
"""How each source is at this moment, by name."""

FindPush = Callable[[str], PushSource | None]
