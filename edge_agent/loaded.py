"""A release loaded and ready for frames: session, pipeline and what it did so far."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloud_sync.evidence import Verdict
from cloud_sync.messages import DesiredModel
from edge_agent.execution import Execution, placement_gate
from edge_agent.mailbox import Frame
from edge_agent.statistics import Live, Window
from edge_agent.store import ReleaseStore
from edgeml.errors import DeviceError, EdgemlError, ModelError

if TYPE_CHECKING:
    from hardware.pipeline import Pipeline
    from hardware.pipeline.definition import Region
    from hardware.pipeline.results import Result
    from hardware.runtimes import Session

MAX_PIPELINE_BYTES = 1 << 20
# A release without a pipeline takes tensors as the model does, and answers with its outputs.
BARE_PIPELINE = b'version = 1\ntask = "raw"\ninput = "tensor"\n[[post]]\nop = "raw"\n'


class LoadedRelease:
    """One release in memory. Its worker alone calls `infer`."""

    def __init__(
        self,
        desired: DesiredModel,
        session: "Session",
        pipeline: "Pipeline",
        execution: Execution,
        site: Mapping[str, Any],
    ) -> None:
        self.desired = desired
        self.session = session
        self.execution = execution
        self.pipeline = pipeline
        self.live = Live()
        self.set_site(site)

    @property
    def runtime(self) -> str:
        """The name of the runtime that runs it."""
        return self.execution.runtime

    @property
    def region(self) -> "Region | None":
        """The part of a frame that it looks at; None for all of it."""
        return self._region

    def set_site(self, site: Mapping[str, Any]) -> None:
        """Use what the site sets from the next frame on; any thread may say so.

        Raises:
            ModelError: the release does not let a site set this.
        """
        self._runner = self.pipeline.runner(self.session.inputs, site)
        self._region = self.pipeline.site_parameters(site).region or self.pipeline.region

    def infer(self, frame: Frame, window: Window) -> "Result | None":
        """Take one frame through pipeline and model, and count it.

        Returns:
            The result, or None where the pipeline located nothing.

        Raises:
            EdgemlError: the model or the pipeline failed on it; counted as an error.
        """
        begun = time.monotonic()
        runner = self._runner
        try:
            tensors = runner.prepare(runner.crop(frame.image))
            prepared = time.monotonic()
            if tensors is None:
                window.empty += 1
                self.live.empty += 1
                return None
            outputs = self.session.run(tensors)
            inferred = time.monotonic()
            result = runner.read(outputs, source=frame.source, at=frame.captured)
        except Exception as error:
            window.errors += 1
            self.live.errors += 1
            if isinstance(error, EdgemlError):
                raise
            # Whatever a frame or a model provokes is that frame's error, never the worker's end.
            raise ModelError(
                "A frame could not be inferred.", why=f"{type(error).__name__}: {error}."
            ) from error
        ended = time.monotonic()
        window.time("wait", begun - frame.captured)
        window.time("pre", prepared - begun)
        window.time("inference", inferred - prepared)
        window.time("post", ended - inferred)
        window.time("total", ended - frame.captured)
        window.result(result.label, confident=result.confident)
        self.live.result((inferred - prepared) * 1000, confident=result.confident)
        return result

    def close(self) -> None:
        """Free the session."""
        self.session.close()


def load(
    store: ReleaseStore,
    desired: DesiredModel,
    site: Mapping[str, Any],
    execution: Execution,
    *,
    spin: bool = False,
) -> LoadedRelease:
    """Load a release that is on this device.

    Raises:
        ReleaseError: something of it is missing or damaged.
        DeviceError: the provider asked for is not there, or left the model to another.
        EdgemlError: it cannot run here.
    """
    from hardware.pipeline import parse
    from hardware.runtimes import SessionOptions, open_session

    variant = store.variant(desired.release, desired.variant)
    # A flipped bit in the weights loads and runs, and answers nonsense.
    store.blobs.verify(variant.file("model").digest)
    file = variant.find("pipeline")
    data = store.blobs.read(file.digest, MAX_PIPELINE_BYTES) if file else BARE_PIPELINE
    session = open_session(
        execution.runtime,
        store.path(variant, "model"),
        SessionOptions(
            threads=execution.threads,
            provider=execution.provider,
            spin=spin,
            compiled=str(store.compiled(variant)),
        ),
    )
    try:
        placed = placement_gate(execution, session.placement())
        if placed is not None and placed.result is Verdict.FAIL:
            raise DeviceError(
                f"{desired.release_version} would not run on {execution.provider}.",
                why=f"{placed.reason}.",
                fix="Check the accelerator and its driver.",
            )
        if file is None and len(session.inputs) != 1:
            raise ModelError(
                f"{desired.release_version} cannot take frames.",
                why=f"It has no pipeline, and {len(session.inputs)} inputs; a frame is one tensor.",
                fix="Export the model with one input.",
            )
        return LoadedRelease(desired, session, parse(data), execution, site)
    except EdgemlError:
        session.close()
        raise
