"""The figures that gates bound: of a device's evidence, and of what it reports while it runs.

| metric | of the trial | live, in whole hours from the rollout's start on |
|---|---|---|
| `latency_p95_ms` | of an inference | of an inference |
| `error_rate` | of the inferences | of the inferences |
| `memory_mb` | of the test's process | of the agent, the highest |
| `confident_share`, `empty_share`, `replaced_share` | | of results, and of frames |
| `temperature_c` | | of the device, the highest |
| `energy_per_inference_j` | | where the device measures it |
| any other | | the mean of what programs gave the local API; `.min` and `.max` after its name |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from sqlalchemy.orm import Session

from cloud_sync.evidence import Evidence, GateResult
from fleet.db import tables
from fleet.rollouts import Figure, Policy
from fleet.rollouts.shares import Share
from fleet.services import rollups
from fleet.sums import Sums

_FRAMES = 10**12  # a share of frames is never of all that there are
_INFERENCE = "inference"
_TEMPERATURE = "temperature_c"


@dataclass(frozen=True)
class Proof:
    """What one piece of evidence shows: its gates, and figures by metric."""

    gates: tuple[GateResult, ...]
    figures: dict[str, Figure]


def proof_of(document: bytes) -> Proof:
    """What a piece of evidence shows."""
    record = msgspec.json.decode(document, type=Evidence)
    return Proof(record.gates, dict(_of_evidence(record)))


def live(
    session: Session, rollout: tables.Rollout, policy: Policy
) -> Mapping[str, dict[str, Figure]]:
    """What devices report of the release while they run it; nothing where no gate asks."""
    asked = {metric.name for metric in policy.gates.bounds()}
    if not asked or rollout.release is None or rollout.started_at is None:
        return {}
    found = rollups.by_device(session, rollout.model, rollout.release, rollout.started_at)
    return {
        one.device: {name: figure for name, figure in of_sums(one.sums) if name in asked}
        for one in found
    }


def _of_evidence(record: Evidence) -> Iterable[tuple[str, Figure]]:
    if record.memory_bytes:
        yield "memory_mb", Figure(value=record.memory_bytes / 1e6)
    trial, latency = record.live, record.latency
    if trial is not None:
        yield from _share("error_rate", trial.errors, trial.inferred + trial.errors)
        latency = trial.latency or latency
    if latency is not None:
        yield "latency_p95_ms", Figure(value=latency.p95_ms, n=latency.n)


def of_sums(sums: Sums) -> Iterable[tuple[str, Figure]]:
    """The figures of what a device reported, by metric; of one name the last one holds."""
    for name, measure in sums.metrics.items():
        mean = min(max(measure.sum / measure.n, measure.min), measure.max)
        yield name, Figure(value=measure.max if name == _TEMPERATURE else mean, n=measure.n)
        yield f"{name}.min", Figure(value=measure.min, n=measure.n)
        yield f"{name}.max", Figure(value=measure.max, n=measure.n)
    yield from _share("error_rate", sums.errors, sums.inferred + sums.errors)
    yield from _share("confident_share", sums.confident, sums.inferred)
    yield from _share("empty_share", sums.empty, sums.accepted)
    yield from _share("replaced_share", sums.replaced, sums.accepted)
    p95 = sums.percentile(_INFERENCE, 95)
    if p95 is not None:
        yield "latency_p95_ms", Figure(value=p95, n=sums.inferred)
    if sums.rss_bytes:
        yield "memory_mb", Figure(value=sums.rss_bytes / 1e6, n=sums.windows)
    energy = sums.energy_per_inference_j
    if energy is not None:
        yield "energy_per_inference_j", Figure(value=energy, n=sums.energy_inferred)


def _share(name: str, count: int, n: int) -> Iterable[tuple[str, Figure]]:
    if n <= 0 or count > n:
        return
    low, high = Share(count=count, n=n, of=_FRAMES).interval
    yield name, Figure(value=count / n, n=n, low=low, high=high)
