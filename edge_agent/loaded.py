"""A release loaded and ready for frames: session, pipeline and what it did so far."""

import time
from collections.abc import Mapping
from typing import Any

from cloud_sync.messages import DesiredModel
from cloud_sync.release import Variant
from edge_agent.statistics import Live, Window
from edge_agent.store import ReleaseStore
from edgeml.errors import EdgemlError, ModelError
from hardware.pipeline import Classification, Pipeline, parse
from hardware.runtimes import Session, SessionOptions, open_session, runtimes

MAX_PIPELINE_BYTES = 1 << 20


class LoadedRelease:
    """One release in memory. Its worker alone calls `infer`."""

    def __init__(
        self,
        desired: DesiredModel,
        session: Session,
        pipeline: Pipeline,
        runtime: str,
        site: Mapping[str, Any],
    ) -> None:
        self.desired = desired
        self.session = session
        self.runtime = runtime
        self.pipeline = pipeline
        self.live = Live()
        self.set_site(site)

    def set_site(self, site: Mapping[str, Any]) -> None:
        """Use what the site sets from the next frame on; any thread may say so.

        Raises:
            ModelError: the release does not let a site set this.
        """
        self._runner = self.pipeline.runner(self.session.inputs, site)

    def infer(self, frame: Any, captured: float, window: Window) -> Classification | None:
        """Take one frame through pipeline and model, and count it.

        Returns:
            The result, or None where the pipeline located nothing.

        Raises:
            EdgemlError: the model or the pipeline failed on it; counted as an error.
        """
        begun = time.monotonic()
        runner = self._runner
        try:
            tensors = runner.prepare(runner.crop(frame))
            prepared = time.monotonic()
            if tensors is None:
                window.empty += 1
                self.live.empty += 1
                return None
            outputs = self.session.run(tensors)
            inferred = time.monotonic()
            result = runner.read(outputs)
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
        window.time("wait", begun - captured)
        window.time("pre", prepared - begun)
        window.time("inference", inferred - prepared)
        window.time("post", ended - inferred)
        window.time("total", ended - captured)
        window.result(result.label, confident=result.confident)
        self.live.result((inferred - prepared) * 1000, confident=result.confident)
        return result

    def close(self) -> None:
        """Free the session."""
        self.session.close()


def load(
    store: ReleaseStore, desired: DesiredModel, site: Mapping[str, Any], *, threads: int = 1
) -> LoadedRelease:
    """Load a release that is on this device.

    Raises:
        ReleaseError: something of it is missing or damaged.
        EdgemlError: it cannot run here.
    """
    variant = store.variant(desired.release, desired.variant)
    runtime = choose_runtime(variant)
    # A flipped bit in the weights loads and runs, and answers nonsense.
    store.blobs.verify(variant.file("model").digest)
    data = store.blobs.read(variant.file("pipeline").digest, MAX_PIPELINE_BYTES)
    session = open_session(runtime, store.path(variant, "model"), SessionOptions(threads=threads))
    try:
        return LoadedRelease(desired, session, parse(data), runtime, site)
    except EdgemlError:
        session.close()
        raise


def choose_runtime(variant: Variant) -> str:
    """The first of the variant's runtimes that is installed here.

    Raises:
        ModelError: none is.
    """
    known = runtimes()
    for wanted in variant.requires.runtimes:
        if wanted.name in known and known[wanted.name].info() is not None:
            return wanted.name
    names = ", ".join(r.name for r in variant.requires.runtimes) or "none named"
    raise ModelError(f"No runtime here can run {variant.name}.", why=f"It wants {names}.")
