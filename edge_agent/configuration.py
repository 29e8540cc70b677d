"""A device's configuration: whether it can be applied here, and the sources it asks for.

It is applied whole or not at all: what is wrong with it is a sentence for the fleet
(`config_error`), and what ran goes on.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from cloud_sync.messages import Configuration, ReportedSource, SourceConfig
from cloud_sync.windows import is_timezone
from edge_agent.mailbox import Frame
from edge_agent.sources import PushSource, Source, SourceStatus, check_source
from edgeml.errors import EdgemlError
from hardware.pipeline import Pipeline

TELEMETRY_S = (0.1, 86400.0)
MAX_FPS = 1000.0
MAX_SOURCES = 64

Deliver = Callable[[str, Frame], bool | None]


def problem(configuration: Configuration, pipelines: Mapping[str, Iterable[Pipeline]]) -> str:
    """Why a configuration cannot be applied here, as a sentence; empty where it can.

    Args:
        configuration: what the fleet wants.
        pipelines: of each model, those of the releases that may take frames now.
    """
    low, high = TELEMETRY_S
    if not low <= configuration.telemetry_every_s <= high:
        return f"telemetry_every_s is {configuration.telemetry_every_s}, allowed is {low} to {high}"
    if wrong := _sources_problem(configuration.sources):
        return wrong
    for window in configuration.update_windows:
        if not is_timezone(window.timezone):
            return f"the time zone {window.timezone!r} of an update window is not known here"
    for model, site in configuration.site.items():
        for pipeline in pipelines.get(model, ()):
            try:
                pipeline.site_parameters(site)
            except EdgemlError as error:
                return f"the site parameters of {model}: {error}"
    return ""


def _sources_problem(sources: Sequence[SourceConfig]) -> str:
    if len(sources) > MAX_SOURCES:
        return f"{len(sources)} sources are configured, allowed are {MAX_SOURCES}"
    for name, count in Counter(source.name for source in sources).items():
        if count > 1:
            return f"{count} sources have the name {name!r}"
    for source in sources:
        if wrong := _source_problem(source):
            return f"the source {source.name!r}: {wrong}"
    return ""


def _source_problem(source: SourceConfig) -> str:
    if not source.name or not source.model:
        return "it needs a name and a model"
    if source.fps is not None and not 0 < source.fps <= MAX_FPS:
        return f"fps is {source.fps}, allowed is above 0 and up to {MAX_FPS:g}"
    try:
        check_source(source)
    except EdgemlError as error:
        return str(error)
    return ""


class Sources:
    """The sources that run; one that a new configuration leaves as it was is not disturbed."""

    def __init__(
        self, deliver: Deliver, on_status: Callable[[SourceStatus], None] | None = None
    ) -> None:
        self._deliver = deliver
        self._on_status = on_status
        self._running: dict[SourceConfig, Source] = {}

    def apply(self, wanted: Iterable[SourceConfig]) -> None:
        """Stop what is not wanted any more, and start what is new."""
        configs = tuple(wanted)
        gone = [
            self._running.pop(config) for config in list(self._running) if config not in configs
        ]
        _end(gone, 5.0)
        for config in configs:
            if config not in self._running:
                kind = PushSource if config.uri.startswith("push:") else Source
                source = kind(
                    config, partial(self._deliver, config.model), on_status=self._on_status
                )
                self._running[config] = source
                source.start()

    def statuses(self) -> tuple[SourceStatus, ...]:
        """How each source is at this moment."""
        return tuple(source.status() for source in list(self._running.values()))

    def reported(self) -> dict[str, ReportedSource]:
        """How each source is at this moment, by name, for whoever operates the device."""
        return {status.name: status.reported() for status in self.statuses()}

    def push_source(self, name: str) -> PushSource | None:
        """The source of that name to which frames can be pushed; None where there is none."""
        for source in list(self._running.values()):
            if isinstance(source, PushSource) and source.config.name == name:
                return source
        return None

    def stop(self) -> None:
        """Ask all to end."""
        for source in self._running.values():
            source.stop()

    def join(self, timeout_s: float) -> None:
        """Wait for all that were asked to end."""
        _end(self._running.values(), timeout_s)


def _end(sources: Iterable[Source], timeout_s: float) -> None:
    ending = list(sources)
    for source in ending:
        source.stop()
    deadline = time.monotonic() + timeout_s
    for source in ending:
        source.join(max(0.0, deadline - time.monotonic()))
