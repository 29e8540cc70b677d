"""One model's update on a simulated device: the agent's phases, and the faults in them.

Resolving, downloading and verifying are done in earnest, with what the fleet and its registry
give; the test and the trial take the time that they would take, and show what `behaviour` draws.
"""

import asyncio
from typing import TYPE_CHECKING

from cloud_sync.messages import (
    DesiredModel,
    Phase,
    RecordKind,
    ReportedModel,
    RollbackCause,
)
from cloud_sync.release import Variant, choose, resolve
from cloud_sync.release.closure import on_devices
from edgeml.errors import EdgemlError, RemoteError
from fleet.simulator import behaviour
from fleet.simulator.behaviour import Asked, Did
from fleet.simulator.http import Errand
from fleet.simulator.population import Fault

if TYPE_CHECKING:
    from fleet.simulator.device import Device

RETRY_S = (1.0, 60.0)
SMALL_BUDGET_BYTES = 100_000
TRIAL_BOOTS = 3
CRASH_S = 0.5
# What the agent reckons a download to cost beside its bytes.
_OVERHEAD, _OVERHEAD_BYTES = 0.08, 16 << 10
_IN_MOTION = frozenset(
    (Phase.RESOLVING, Phase.DOWNLOADING, Phase.VERIFYING, Phase.TESTING, Phase.TRIAL)
)


class Ended(Exception):  # noqa: N818 -- an end, and not always a fault
    """The update ends in this phase, for this reason."""

    def __init__(
        self, phase: Phase, reason: str, cause: RollbackCause = RollbackCause.GATE
    ) -> None:
        super().__init__(reason)
        self.phase = phase
        self.cause = cause


class ModelUpdate:
    """See the module.

    Args:
        device: whose.
        model: the model's name.
        running: the release that it ran before the simulator was started.
        blocked: the one that it had given up by then.
    """

    __slots__ = (
        "_before", "_device", "_model", "_task",
        "blocked", "candidate", "cause", "phase", "reason", "running",
    )  # fmt: skip

    def __init__(
        self,
        device: "Device",
        model: str,
        running: DesiredModel | None = None,
        blocked: DesiredModel | None = None,
    ) -> None:
        self._device = device
        self._model = model
        self._task: asyncio.Task[None] | None = None
        self._before = Did()
        self.running = running
        self.blocked = blocked
        self.candidate = blocked
        self.phase = Phase.ROLLED_BACK if blocked else Phase.COMMITTED if running else Phase.IDLE
        self.cause = ""
        self.reason = "it was rolled back before this simulator was started" if blocked else ""
        device.site.tally.phases[self.phase] += 1
        if running is not None:
            device.site.tally.running[f"{model}:{running.release_version}"] += 1

    def reported(self) -> ReportedModel:
        """What the fleet is told."""
        running, about = self.running, self.candidate or self.running
        return ReportedModel(
            phase=self.phase,
            running_release=running.release if running else "",
            running_variant=running.variant if running else "",
            running_version=running.release_version if running else "",
            release=about.release if about else "",
            variant=about.variant if about else "",
            release_version=about.release_version if about else "",
            rollout=about.rollout if about else "",
            attempt=about.attempt if about else 0,
            reason=self.reason,
            cause=self.cause if self.phase is Phase.ROLLED_BACK else "",
        )

    def want(self, desired: DesiredModel) -> None:
        """The fleet wants this release; as `edge_agent.update.machine` decides."""
        if _same(self.running, desired):
            known = self.candidate is None and self.running == desired
            self.cancel()
            self.candidate = None
            self._run(desired)
            if not known or self.phase is not Phase.COMMITTED:
                self._enter(Phase.COMMITTED)
            return
        current = self.candidate
        if current is not None and _same(current, desired) and desired.attempt <= current.attempt:
            return
        self.cancel()
        self.candidate = desired
        if _same(self.blocked, desired) and desired.attempt <= (self.blocked or desired).attempt:
            self._enter(Phase.ROLLED_BACK, "it was rolled back on this device before")
            return
        self._device.site.tally.add("updates")
        self._task = self._device.site.spawn(self._update(desired))

    def unwanted(self) -> None:
        """The fleet wants no release of this model any more."""
        self.cancel()
        tally = self._device.site.tally
        tally.phases[self.phase] -= 1
        if self.running is not None:
            tally.running[f"{self._model}:{self.running.release_version}"] -= 1

    def cancel(self) -> None:
        """Leave what is under way as it is."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _update(self, desired: DesiredModel) -> None:
        try:
            variant = await self._fetched(desired)
            await self._test(desired, variant)
            await self._try(desired, variant)
        except Ended as end:
            if end.phase is Phase.ROLLED_BACK:
                self.blocked = desired
            self.cause = end.cause
            self._enter(end.phase, str(end))
            return
        self.candidate = None
        self._run(desired)
        self._enter(Phase.COMMITTED)

    async def _fetched(self, desired: DesiredModel) -> Variant:
        """Do what needs the network until it is done."""
        pause = RETRY_S[0]
        while True:
            try:
                return await self._fetch(desired)
            except (RemoteError, OSError) as error:
                self._device.site.tally.failed(error)
            except EdgemlError as error:
                raise Ended(Phase.REFUSED, str(error)) from error
            await asyncio.sleep(pause * self._device.chance.uniform(0.5, 1.0))
            pause = min(2 * pause, RETRY_S[1])

    async def _fetch(self, desired: DesiredModel) -> Variant:
        device = self._device
        async with device.site.web.errand(device.member.device, device.key) as errand:
            self._enter(Phase.RESOLVING)
            variant = await self._resolve(errand, desired)
            self._enter(Phase.DOWNLOADING)
            why = self._over_budget(desired, variant)
            if not why and device.member.fault not in {Fault.VANISHES, Fault.LATE}:
                await self._download(errand, variant, desired.rollout)
                return variant
        if why:
            await self._wait_for_budget(why)
        await self._vanish()
        async with device.site.web.errand(device.member.device, device.key) as errand:
            await self._download(errand, variant, desired.rollout)
        return variant

    async def _resolve(self, errand: Errand, desired: DesiredModel) -> Variant:
        device, site = self._device, self._device.site
        if device.member.fault is Fault.REFUSES:
            raise Ended(Phase.REFUSED, "this device refuses what it is given (simulated)")
        index = await site.releases.index(errand, self._model, desired.release)
        if index.model != self._model:
            raise Ended(Phase.REFUSED, f"the release is {index.name}, wanted is {self._model}")
        if site.trust is not None:
            await site.trust.check(device.member.device, errand, index)
        capabilities = site.capabilities[device.member.kind.name]
        best = choose(index.variants, capabilities)
        if best is None or best.digest != desired.variant:
            whole = await site.releases.whole(errand, self._model, desired.release)
            other = "the fleet chose another variant than this device would: " if best else ""
            raise Ended(Phase.REFUSED, f"{other}{resolve(whole, capabilities).reason}")
        return await site.releases.variant(errand, self._model, index.digest, best.digest)

    async def _download(self, errand: Errand, variant: Variant, rollout: str) -> None:
        needed = on_devices(variant)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for digest, size in needed.items():
            await errand.blob(self._model, digest, size)
            self._device.site.tally.add("downloads")
        if mbit := self._device.member.kind.down_mbit:
            takes = sum(needed.values()) * 8e-6 / mbit
            await asyncio.sleep(max(0.0, takes - (loop.time() - begun)))
        self._device.spent(rollout, sum(needed.values()))
        self._enter(Phase.VERIFYING)  # each blob was hashed as it came

    def _over_budget(self, desired: DesiredModel, variant: Variant) -> str:
        """Why the update does not fit into the data budget; empty where it does."""
        size = sum(on_devices(variant).values())
        budget = self._device.configuration.data_budget
        bound = budget.rollout_bytes or desired.data_budget_bytes or None
        if self._device.member.fault is Fault.SMALL_BUDGET:
            bound = min(bound or SMALL_BUDGET_BYTES, SMALL_BUDGET_BYTES)
        cost = round(size * (1 + _OVERHEAD)) + _OVERHEAD_BYTES
        if bound is None or cost <= bound:
            return ""
        return (
            f"budget: about {cost / 1e6:.2f} MB are needed, {bound / 1e6:.2f} MB are left. "
            f"The data budget of this rollout is {bound / 1e6:.2f} MB."
        )

    async def _wait_for_budget(self, reason: str) -> None:
        if self._device.configuration.data_budget.when_spent == "refuse":
            raise Ended(Phase.REFUSED, reason)
        self._enter(Phase.DOWNLOADING, reason)
        await asyncio.Event().wait()  # until the fleet wants something else

    async def _vanish(self) -> None:
        device = self._device
        device.here.clear()
        await asyncio.sleep(0)
        device.lose_connection()
        if device.member.fault is Fault.VANISHES:
            await asyncio.Event().wait()
        await asyncio.sleep(device.site.late_s)
        device.here.set()
        await device.up.wait()

    async def _test(self, desired: DesiredModel, variant: Variant) -> None:
        device = self._device
        self._enter(Phase.TESTING)
        evidence = behaviour.test_evidence(
            device.member, self._asked(desired, variant), device.chance
        )
        assert evidence.latency is not None
        await asyncio.sleep(evidence.latency.p50_ms * behaviour.GOLDEN_SAMPLES / 1000)
        device.record(RecordKind.EVIDENCE, evidence)
        if why := behaviour.failing(evidence):
            raise Ended(Phase.ROLLED_BACK, f"the test on the device is fail: {why}")

    async def _try(self, desired: DesiredModel, variant: Variant) -> None:
        device, fps = self._device, self._device.site.fps
        self._enter(Phase.TRIAL)
        if device.member.fault is Fault.CRASHES:
            await self._crash()
        await asyncio.sleep(behaviour.trial_seconds(desired.trial, fps))
        evidence, did = behaviour.trial_evidence(
            device.member, self._asked(desired, variant), self._before, fps, device.chance
        )
        device.record(RecordKind.EVIDENCE, evidence)
        if why := behaviour.failing(evidence):
            raise Ended(Phase.ROLLED_BACK, why)
        self._before = did

    async def _crash(self) -> None:
        for _ in range(TRIAL_BOOTS):
            await asyncio.sleep(CRASH_S)
            self._device.lose_connection()
            await self._device.up.wait()
        why = f"the agent had to start {TRIAL_BOOTS} times during its trial"
        raise Ended(Phase.ROLLED_BACK, why, RollbackCause.CRASHED)

    def _asked(self, desired: DesiredModel, variant: Variant) -> Asked:
        return Asked(
            model=self._model,
            desired=desired,
            variant=variant,
            epoch=self._device.epoch,
            counter=self._device.counter,
        )

    def _enter(self, phase: Phase, reason: str = "") -> None:
        if (phase, reason) == (self.phase, self.reason) and phase in _IN_MOTION:
            return
        self._device.site.tally.moved(self.phase, phase)
        self.phase, self.reason = phase, reason
        self._device.report(self._model, self.reported())

    def _run(self, desired: DesiredModel) -> None:
        running = self._device.site.tally.running
        if self.running is not None:
            running[f"{self._model}:{self.running.release_version}"] -= 1
        running[f"{self._model}:{desired.release_version}"] += 1
        self.running = desired


def _same(a: DesiredModel | None, b: DesiredModel) -> bool:
    return a is not None and (a.release, a.variant) == (b.release, b.variant)
