"""The agent's figures in the text format of Prometheus, written by its own library.

The library is imported when the first scrape comes; without one it costs nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cloud_sync.messages import ReportedSource
from cloud_sync.sketch import Sketch
from edge_agent.api.device import ServedModel
from edge_agent.api.totals import Total
from hardware.probes import Temperature

# Powers of two, in milliseconds, are bounds of the sketches too: the counts below are exact.
BOUNDS_MS = tuple(2.0**power for power in range(-4, 15))
_PER_DOUBLING = 8


class Figures:
    """What one scrape says; a collector in the library's sense."""

    def __init__(
        self,
        *,
        device: str,
        agent_version: str,
        models: Sequence[ServedModel],
        totals: Sequence[Total],
        sources: Mapping[str, ReportedSource],
        temperatures: Sequence[Temperature],
        clock_share: float,
        rss_bytes: int,
    ) -> None:
        self._device = device
        self._agent_version = agent_version
        self._models = models
        self._totals = totals
        self._sources = sources
        self._temperatures = temperatures
        self._clock_share = clock_share
        self._rss_bytes = rss_bytes

    def text(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

        return generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Any]:
        """Every family of metrics."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        info = GaugeMetricFamily(
            "edgeml_agent_info", "The agent; always 1.", labels=["device", "agent_version"]
        )
        info.add_metric([self._device, self._agent_version], 1)
        yield info
        running = GaugeMetricFamily(
            "edgeml_model_info",
            "A model that takes frames; always 1.",
            labels=["model", "version", "release", "variant", "runtime"],
        )
        stuck = GaugeMetricFamily(
            "edgeml_model_stuck_seconds",
            "How long its inference has been stuck; 0 where it is not.",
            labels=["model", "version"],
        )
        duty = GaugeMetricFamily(
            "edgeml_model_duty_ratio",
            "The share of its time that it may infer; less than 1 on a device that is too hot.",
            labels=["model", "version"],
        )
        for model in self._models:
            running.add_metric(
                [model.name, model.version, model.release, model.variant, model.runtime], 1
            )
            stuck.add_metric([model.name, model.version], model.stuck_s)
            duty.add_metric([model.name, model.version], model.duty)
        yield from (running, stuck, duty)

        source = ["model", "version", "source"]
        accepted = CounterMetricFamily(
            "edgeml_frames_accepted", "Frames that a source gave to a model.", labels=source
        )
        done = CounterMetricFamily(
            "edgeml_frames",
            "What became of them: inferred, empty (nothing located), replaced (by a newer one "
            "while waiting), error.",
            labels=[*source, "outcome"],
        )
        confident = CounterMetricFamily(
            "edgeml_results_confident", "Results at or above the threshold.", labels=source
        )
        latency = HistogramMetricFamily(
            "edgeml_latency_seconds",
            "Of one frame, by stage; total is from capture to result. The sum is approximate.",
            labels=[*source, "stage"],
        )
        for total in self._totals:
            labels = [total.model, total.version, total.source]
            accepted.add_metric(labels, total.accepted)
            confident.add_metric(labels, total.confident)
            for outcome, count in (
                ("inferred", total.inferred),
                ("empty", total.empty),
                ("replaced", total.replaced),
                ("error", total.errors),
            ):
                done.add_metric([*labels, outcome], count)
            for stage, sketch in total.latency.items():
                latency.add_metric([*labels, stage], *histogram(sketch))
        yield from (accepted, done, confident, latency)

        up = GaugeMetricFamily(
            "edgeml_source_up",
            "Whether a source runs: it gives frames, or waits for them as it should.",
            labels=["source", "model"],
        )
        state = GaugeMetricFamily(
            "edgeml_source_state_seconds",
            "How long a source has been in the state that it is in.",
            labels=["source", "model", "state"],
        )
        for name, said in self._sources.items():
            up.add_metric([name, said.model], said.state == "running")
            state.add_metric([name, said.model, said.state], said.seconds)
        yield from (up, state)

        warmth = GaugeMetricFamily(
            "edgeml_temperature_celsius", "Of the kernel's thermal zones.", labels=["zone"]
        )
        for zone, celsius in _each_once(self._temperatures):
            warmth.add_metric([zone], celsius)
        yield warmth
        yield GaugeMetricFamily(
            "edgeml_clock_ratio",
            "The highest clock that the kernel allows now, of the processor's highest.",
            value=self._clock_share,
        )
        yield GaugeMetricFamily(
            "edgeml_resident_memory_bytes", "Memory of the agent.", value=self._rss_bytes
        )


def histogram(sketch: Sketch) -> tuple[list[tuple[str, float]], float]:
    """A sketch of milliseconds as cumulative buckets and a sum, in seconds.

    The counts are exact; the sum takes each value for the middle of its bucket, which is off
    by at most 4.5 per cent.
    """
    ordered = sorted((int(index), count) for index, count in sketch.buckets.items())
    total = sum(count * 2 ** ((index + 0.5) / _PER_DOUBLING) for index, count in ordered)
    buckets = []
    for bound in BOUNDS_MS:
        below = sum(n for index, n in ordered if 2 ** ((index + 1) / _PER_DOUBLING) <= bound)
        buckets.append((repr(bound / 1000), float(sketch.zeros + below)))
    return [*buckets, ("+Inf", float(sketch.count))], total / 1000


def _each_once(temperatures: Iterable[Temperature]) -> Iterator[tuple[str, float]]:
    """Zones by type; boards have several of one, and of those the warmest counts."""
    warmest: dict[str, float] = {}
    for found in temperatures:
        warmest[found.zone] = max(found.celsius, warmest.get(found.zone, found.celsius))
    yield from warmest.items()
