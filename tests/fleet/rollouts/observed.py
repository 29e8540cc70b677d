"""Short ways to write observations and gates down in the tests of the engine."""

from typing import Any

import msgspec

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts import DeviceObservation, RolloutState

RELEASE = "sha256:new"
NOW = 1_700_000_000.0
ROLLOUT = RolloutState(
    id="digits-1.1.0-abc", model="digits", release=RELEASE, release_version="1.1.0"
)


def gate(
    result: Verdict = Verdict.PASS, name: str = "golden.outputs", **numbers: Any
) -> GateResult:
    return GateResult(name=name, result=result, **{"reason": "as measured", **numbers})


def latency(p95: float, before: float | None) -> GateResult:
    return gate(name="live.latency_p95", value=p95, baseline=before, unit="ms", n=50)


def device(name: str = "cam-1", **fields: Any) -> DeviceObservation:
    """A device that the release fits and that has no part in the rollout yet."""
    return DeviceObservation(
        **{"device": name, "hardware_class": "x86_64-2c", "variant": "sha256:v", **fields}
    )


def given(name: str = "cam-1", phase: Phase | None = None, **fields: Any) -> DeviceObservation:
    """A device that was given the release."""
    start = {"assigned_variant": "sha256:v", "assigned_at": NOW - 10, "phase": phase}
    return device(name, **{**start, **fields})


def committed(name: str = "cam-1", *gates: GateResult, **fields: Any) -> DeviceObservation:
    """A device that committed the release, with evidence."""
    return given(name, Phase.COMMITTED, gates=gates or (gate(),), **fields)


def rolled_back(name: str = "cam-1", why: str = "unsure", **fields: Any) -> DeviceObservation:
    """A device that took the release back."""
    return given(name, Phase.ROLLED_BACK, reason=why, **fields)


def state(**fields: Any) -> RolloutState:
    """The rollout's state with some fields set."""
    return msgspec.structs.replace(ROLLOUT, **fields)
