"""Sources and workers follow the configuration: the one that is tried, else the one committed."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge_agent.configuration_trial import Seen
from edge_agent.remote.tap import Tap
from edge_agent.twin import Twin
from edge_agent.workers import Workers

if TYPE_CHECKING:
    from edge_agent.sources import SourceStatus

# States of a source in which it needs to have given no frame yet.
WORKING = frozenset({"running", "ended"})
TROUBLED = frozenset({"stalled", "lost"})


class Following:
    """See the module.

    Args:
        twin: has the configuration.
        workers: of all models.
        write_line: takes what the device's results file should say of a source.
    """

    def __init__(
        self, twin: Twin, workers: Workers, write_line: Callable[[dict[str, Any]], None]
    ) -> None:
        from edge_agent.configuration import Sources

        self._twin = twin
        self._workers = workers
        self._write_line = write_line
        self._lock = threading.Lock()
        self._troubled: set[str] = set()
        self._answered: dict[str, tuple[int, int]] = {}
        self.tap = Tap(workers.deliver)
        self.sources = Sources(self.tap, self._source_changed)

    def use(self) -> None:
        """Make sources and site parameters be what the configuration says."""
        with self._lock:
            self.sources.apply(self._twin.configuration.sources)
            self._workers.set_sites(self.site)
            self._answered = self._workers.answered()

    def again(self) -> None:
        """Try a refused configuration again; it may have waited for the release that runs now."""
        if self._twin.configure_again():
            self.use()

    def turn(self) -> None:
        """Judge what is tried, and after a while try again what was rolled back."""
        ended = self._twin.judge(self._seen)
        if ended or (self._twin.is_due() and self._twin.configure_again()):
            self.use()

    def site(self, model: str) -> Mapping[str, Any]:
        """What the site sets for a model."""
        return self._twin.configuration.site.get(model, {})

    def _seen(self, seconds: float) -> Seen:
        before, now = self._answered, self._workers.answered()
        return Seen(
            seconds=seconds,
            sources={
                status.name: (status.frames > 0 or status.state in WORKING, status.reason)
                for status in self.sources.statuses()
            },
            models={
                model: (
                    max(0, good - before.get(model, (0, 0))[0]),
                    max(0, bad - before.get(model, (0, 0))[1]),
                )
                for model, (good, bad) in now.items()
            },
        )

    def _source_changed(self, status: "SourceStatus") -> None:
        """A source without frames is no source that sees nothing: the results say so."""
        troubled = status.state in TROUBLED
        if troubled or status.name in self._troubled:
            self._write_line(status.line())
            (self._troubled.add if troubled else self._troubled.discard)(status.name)
