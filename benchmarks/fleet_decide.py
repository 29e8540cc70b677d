"""Decisions a second: the rollout engine over a million devices in memory, in mid-rollout."""

import statistics
import time
from collections.abc import Iterator

from benchmarks.measure import Row, quartiles
from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts import DeviceObservation, Policy, RolloutState, decide

DEVICES, QUICK_DEVICES = 1_000_000, 100_000
ROUNDS = 7
IN_FLIGHT = 1000
_NOW = 1_800_000_000.0
_GATE = GateResult(
    name="live.latency_p95",
    result=Verdict.PASS,
    value=5.0,
    baseline=5.1,
    n=50,
    reason="p95 is 5 ms",
)


def rows(quick: bool) -> Iterator[Row]:
    """A quarter has committed, a thousand are in flight, the rest is to come."""
    number = QUICK_DEVICES if quick else DEVICES
    devices = [_device(index, number) for index in range(number)]
    rollout = RolloutState(
        id="r", model="digits", release="sha256:" + "a" * 64, release_version="1.0.0", wave=3
    )
    rates = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        decide(Policy(), rollout, devices, _NOW)
        rates.append(number / (time.perf_counter() - begun))
    # What any engine in Python has to do: look at each device once.
    looks = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        sum(device.phase is Phase.COMMITTED for device in devices)
        looks.append(number / (time.perf_counter() - begun))
    ours, bare = statistics.median(rates), statistics.median(looks)
    yield Row(
        metric="decide.devices_per_s",
        value=ours,
        unit="devices/s",
        peer="one look at each",
        peer_value=bare,
        ratio=ours / bare,
        spread=quartiles([rate / bare for rate in rates]),
        n=number,
    )


def _device(index: int, number: int) -> DeviceObservation:
    kind, variant = f"class-{index % 8}", f"sha256:{index % 4:064}"
    if index >= number // 4 + IN_FLIGHT:
        return DeviceObservation(device=f"d-{index:07}", hardware_class=kind, variant=variant)
    done = index < number // 4
    return DeviceObservation(
        device=f"d-{index:07}",
        hardware_class=kind,
        variant=variant,
        assigned_variant=variant,
        assigned_at=_NOW - 60.0,
        phase=Phase.COMMITTED if done else Phase.DOWNLOADING,
        gates=(_GATE,) if done else (),
    )
