"""The workers of all models: who takes frames now, and what becomes of one that is stuck.

A model's own update thread alone changes its worker; everyone may look, deliver and report.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloud_sync.messages import Window as WindowRecord
from edge_agent.loaded import LoadedRelease
from edge_agent.mailbox import Frame
from edge_agent.worker import Celsius, Energy, OnFrame, OnResult, Worker
from edgeml.errors import DeviceError, EdgemlError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_agent.api.device import ServedModel, Watched

log = logging.getLogger(__name__)

RETIRE_S = 5.0


class Workers:
    """See the module.

    Args:
        on_result: called with the line of every result.
        on_windows: called with what was done since the last report.
        energy: the joules that the device has used so far, None where nothing tells.
        celsius: how warm it is now, None where nothing tells.
        on_frame: called with every frame that is done, the line of its result and what ran.
    """

    def __init__(
        self,
        on_result: OnResult,
        on_windows: Callable[[Iterable[WindowRecord]], None],
        energy: Energy = lambda: None,
        celsius: Celsius = lambda: None,
        on_frame: OnFrame = lambda _frame, _line, _loaded: None,
    ) -> None:
        self._on_frame = on_frame
        self._energy = energy
        self._celsius = celsius
        self._on_result = on_result
        self._on_windows = on_windows
        self._of: dict[str, Worker] = {}
        self._abandoned: list[Worker] = []
        self._duty = 1.0

    def running(self, model: str) -> LoadedRelease | None:
        """The release that takes a model's frames; None where nothing does."""
        worker = self._of.get(model)
        return None if worker is None or worker.abandoned else worker.loaded

    def stuck_s(self, model: str) -> float:
        """How long a model's inference has been stuck; 0 where it is not."""
        worker = self._of.get(model)
        return worker.stuck_s() if worker else 0.0

    def deliver(self, model: str, frame: Frame) -> bool | None:
        """Leave a frame for a model.

        Returns:
            Whether it replaced one that still waited; None where the model does not run.
        """
        worker = self._of.get(model)
        return None if worker is None else worker.mailbox.put(frame)

    def models(self) -> "tuple[ServedModel, ...]":
        """What takes frames now."""
        from edge_agent.api.device import ServedModel

        return tuple(
            ServedModel(
                name=model,
                version=worker.loaded.desired.release_version,
                release=worker.loaded.desired.release,
                variant=worker.loaded.desired.variant,
                runtime=worker.loaded.runtime,
                inputs=worker.loaded.session.inputs,
                outputs=worker.loaded.session.outputs,
                stuck_s=worker.stuck_s(),
                duty=worker.duty,
            )
            for model, worker in list(self._of.items())
            if not worker.abandoned
        )

    def infer(
        self, model: str, tensors: Sequence["NDArray[Any]"], timeout_s: float
    ) -> "list[NDArray[Any]]":
        """Run tensors through a model that takes frames, between two of them.

        Raises:
            ModelError: the tensors do not fit the model.
            DeviceError: the model does not run here, is stuck, or did not end in time.
        """
        return self._worker(model).infer(tensors, timeout_s)

    def watch(self, model: str, timeout_s: float) -> "Watched | None":
        """The next frame of a model that is done; None if none comes in time.

        Raises:
            DeviceError: the model does not run here.
        """
        return self._worker(model).watch(timeout_s)

    def measure(self, model: str, metrics: Mapping[str, Sequence[float]]) -> None:
        """Report what somebody measured of a model's release with its next window.

        Raises:
            UserError: these are too many metrics.
            DeviceError: the model does not run here.
        """
        self._worker(model).measure(metrics)

    def _worker(self, model: str) -> Worker:
        worker = self._of.get(model)
        if worker is None:
            running = ", ".join(self._of) or "none"
            raise DeviceError(f"The model {model} does not run here.", why=f"Running: {running}.")
        return worker

    def answered(self) -> dict[str, tuple[int, int]]:
        """How many frames each model's release has answered since it went live, and failed on."""
        lives = {model: worker.loaded.live for model, worker in list(self._of.items())}
        return {model: (live.inferred + live.empty, live.errors) for model, live in lives.items()}

    def set_duty(self, duty: float) -> None:
        """Let every model infer for that share of its time."""
        self._duty = duty
        for worker in list(self._of.values()):
            worker.duty = duty

    def go_live(self, model: str, loaded: LoadedRelease) -> LoadedRelease | None:
        """Let a release take a model's next frame.

        Returns:
            The one that ran until now, still warm; None where there is none to use again.
        """
        worker = self._of.get(model)
        if worker is not None and not worker.abandoned:
            try:
                before, windows = worker.swap(loaded)
            except DeviceError:
                self.abandon(model)
            else:
                self._on_windows(windows)
                return before
        if worker is None:
            fresh = Worker(
                model,
                loaded,
                self._on_result,
                energy=self._energy,
                celsius=self._celsius,
                on_frame=self._on_frame,
            )
        else:
            self._report(worker)
            fresh = worker.successor(loaded)
        fresh.duty = self._duty
        self._of[model] = fresh
        fresh.start()
        return None

    def retire(self, model: str) -> LoadedRelease | None:
        """End a model; returns what ran, None where nothing did or it cannot be closed."""
        worker = self._of.pop(model, None)
        if worker is None:
            return None
        worker.stop()
        if not worker.abandoned and not worker.join(RETIRE_S):
            self._give_up(worker)
        self._report(worker)
        return None if worker.abandoned else worker.loaded

    def abandon(self, model: str) -> int:
        """Give a stuck worker up; returns how many such threads this process has."""
        worker = self._of.get(model)
        if worker is not None and not worker.abandoned:
            self._give_up(worker)
        return len(self._abandoned)

    def set_sites(self, site: Callable[[str], Mapping[str, Any]]) -> None:
        """Let every release follow what the site sets; one that does not let it stays."""
        for model, worker in list(self._of.items()):
            try:
                worker.set_site(site(model))
            except EdgemlError as error:
                log.error("%s: %s", model, error)  # noqa: TRY400 -- the sentence says it all

    def report(self, timeout_s: float) -> None:
        """Report what every model did since the last time; one that is busy does so later."""
        for worker in list(self._of.values()):
            self._report(worker, timeout_s)

    def stop(self) -> None:
        """Ask all to end after the frame in flight."""
        for worker in list(self._of.values()):
            worker.stop()

    def join(self, deadline: float) -> None:
        """Wait for all to end, until a monotonic time."""
        for worker in list(self._of.values()):
            worker.join(max(0.05, deadline - time.monotonic()))

    def _give_up(self, worker: Worker) -> None:
        log.error("%s: its inference is stuck; the thread is abandoned", worker.model)
        worker.abandon()
        self._abandoned = [w for w in (*self._abandoned, worker) if not w.join(0.0)]

    def _report(self, worker: Worker, timeout_s: float = RETIRE_S) -> None:
        try:
            windows = worker.windows(timeout_s)
        except DeviceError as error:
            log.warning("telemetry: %s", error)
            return
        self._on_windows(windows)
