"""One model's update on a simulated device: the agent's own machine, and the faults in its work.

What follows on what is decided by `cloud_sync.update_machine`, as on a real device. Resolving,
downloading and verifying are done in earnest, with what the fleet and its registry give; the test
and the trial take the time that they would take, and show what `behaviour` draws.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from cloud_sync.data_budget import bounds, cost
from cloud_sync.messages import DesiredModel, Phase, RecordKind, ReportedModel
from cloud_sync.metadata_error import MetadataError
from cloud_sync.release import Variant, choose, resolve
from cloud_sync.release.closure import on_devices
from cloud_sync.update_machine import (
    IN_MOTION,
    Again,
    Done,
    Event,
    Fail,
    ModelState,
    Refuse,
    Restarted,
    Unwanted,
    Waiting,
    Wanted,
    is_held,
    report,
    same_release,
    step,
    waits,
)
from cloud_sync.windows import HELD, closed
from edgeml.errors import EdgemlError, ReleaseError, RemoteError
from fleet.simulator import behaviour
from fleet.simulator.behaviour import Asked
from fleet.simulator.http import Errand
from fleet.simulator.population import Fault

if TYPE_CHECKING:
    from fleet.simulator.device import Device

RETRY_S = (1.0, 60.0)
LOOK_S = (30.0, 3600.0)
WAIT_S = 5.0  # how often a closed window and a spent budget are looked at again
SMALL_BUDGET_BYTES = 100_000
CORRUPT_ATTEMPTS = 2
METADATA_ATTEMPTS = 6
CRASH_S = 0.5


class ModelUpdate:
    """See the module.

    Args:
        device: whose.
        model: the model's name.
        state: what the device remembers of it.
    """

    __slots__ = ("_device", "_model", "_task", "_variant", "state")

    def __init__(self, device: "Device", model: str, state: ModelState | None = None) -> None:
        self._device = device
        self._model = model
        self._task: asyncio.Task[None] | None = None
        self._variant: Variant | None = None
        self.state = state or ModelState()
        device.site.tally.phases[self.state.phase] += 1
        self._count_running(1)

    @property
    def running(self) -> DesiredModel | None:
        """The release that it has committed to."""
        return self.state.running

    def reported(self) -> ReportedModel:
        """What the fleet is told."""
        return report(self.state)

    def want(self, desired: DesiredModel) -> None:
        """The fleet wants this release."""
        before = self.state.candidate
        after = self._apply(Wanted(desired=desired)).candidate
        if not _same_attempt(before, after):
            self.cancel()
            self._variant = None
            if self.state.phase is Phase.RESOLVING:
                self._device.site.tally.add("updates")
        self._go_on()

    def unwanted(self) -> None:
        """The fleet wants no release of this model any more."""
        self.cancel()
        self._device.site.tally.phases[self.state.phase] -= 1
        self._count_running(-1)
        self.state = step(self.state, Unwanted())

    def cancel(self) -> None:
        """Leave what is under way as it is."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _go_on(self) -> None:
        """Have what is due done, unless it is being done."""
        if self._is_due() and (self._task is None or self._task.done()):
            self._task = self._device.site.spawn(self._drive())

    def _is_due(self) -> bool:
        state = self.state
        return (state.phase in IN_MOTION and not waits(state)) or (
            state.phase is Phase.REFUSED and state.lacking
        )

    async def _drive(self) -> None:
        while self._is_due():
            desired = self.state.candidate
            assert desired is not None
            await self._at_its_time(desired)
            try:
                event = await self._work(desired)
            except (RemoteError, OSError) as error:
                self._device.site.tally.failed(error)
                await asyncio.sleep(RETRY_S[0])
                continue
            if event is None:
                return
            self._apply(event)

    async def _work(self, desired: DesiredModel) -> Event | None:
        """Do what this phase is about; None where nothing is to be done before the fleet speaks."""
        match self.state.phase:
            case Phase.REFUSED:
                return await self._look_again(desired)
            case Phase.TESTING:
                return await self._test(desired)
            case Phase.PREPARED:
                return await self._switch(desired)
            case Phase.TRIAL:
                return await self._try(desired)
            case _:
                return await self._fetched(desired)

    async def _at_its_time(self, desired: DesiredModel) -> None:
        """Wait for an update window, where the configuration has any."""
        while is_held(self.state):
            now, windows = time.time(), self._device.configuration.update_windows
            why = closed(windows, now, time.localtime(now).tm_gmtoff) if windows else ""
            if why or self.state.reason.startswith(HELD):
                self._apply(Waiting(about=desired, reason=why))
            if not why:
                return
            await asyncio.sleep(WAIT_S * self._device.chance.uniform(0.1, 1.0))

    async def _fetched(self, desired: DesiredModel) -> Event:
        """Do what needs the network until it is done."""
        pause, corrupt, damaged = RETRY_S[0], 0, 0
        while True:
            try:
                self._variant = await self._fetch(desired)
            except (RemoteError, OSError) as error:
                self._device.site.tally.failed(error)
            except MetadataError as error:
                self._device.site.tally.failed(error)
                damaged += 1
                if damaged == METADATA_ATTEMPTS:
                    return Refuse(about=desired, reason=str(error), lacking=True)
                self._apply(Waiting(about=desired, reason=f"{error} It is asked for again."))
            except ReleaseError as error:
                corrupt += 1
                if corrupt == CORRUPT_ATTEMPTS:
                    return Refuse(about=desired, reason=str(error))
            except EdgemlError as error:
                return Refuse(about=desired, reason=str(error))
            else:
                return Done(about=desired, phase=Phase.VERIFYING)
            await asyncio.sleep(pause * self._device.chance.uniform(0.5, 1.0))
            pause = min(2 * pause, RETRY_S[1])

    async def _fetch(self, desired: DesiredModel) -> Variant:
        device = self._device
        async with device.site.web.errand(device.member.device, device.key) as errand:
            variant = await self._resolve(errand, desired)
            self._apply(Done(about=desired, phase=Phase.RESOLVING))
            leaves = device.member.fault in {Fault.VANISHES, Fault.LATE}
            if not self._over_budget(desired, variant) and not leaves:
                await self._download(errand, variant, desired)
                return variant
        await self._wait_for_budget(desired, variant)
        if leaves:
            await self._vanish()
        async with device.site.web.errand(device.member.device, device.key) as errand:
            await self._download(errand, variant, desired)
        return variant

    async def _resolve(self, errand: Errand, desired: DesiredModel) -> Variant:
        device, site = self._device, self._device.site
        if device.member.fault is Fault.REFUSES:
            raise _Refused("This device refuses what it is given (simulated).")
        index = await site.releases.index(errand, self._model, desired.release)
        if index.model != self._model:
            raise _Refused(f"The release is {index.name}, wanted is {self._model}.")
        if site.trust is not None:
            await site.trust.check(device.member.device, errand, index)
        capabilities = site.capabilities[device.member.kind.name]
        best = choose(index.variants, capabilities)
        if best is None or best.digest != desired.variant:
            whole = await site.releases.whole(errand, self._model, desired.release)
            other = "the fleet chose another variant than this device would: " if best else ""
            raise _Refused(f"{other}{resolve(whole, capabilities).reason}")
        return await site.releases.variant(errand, self._model, index.digest, best.digest)

    async def _look_again(self, desired: DesiredModel) -> Event:
        """Take up what was refused for now, once nothing stands in its way any more."""
        device, pause = self._device, LOOK_S[0]
        while True:
            await asyncio.sleep(pause * device.chance.uniform(0.5, 1.0))
            pause = min(2 * pause, LOOK_S[1])
            try:
                async with device.site.web.errand(device.member.device, device.key) as errand:
                    await self._resolve(errand, desired)
            except (MetadataError, RemoteError, ReleaseError, OSError) as error:
                device.site.tally.failed(error)
            except EdgemlError:
                break  # it is refused for another reason now, which it says
            else:
                break
        return Again(about=desired)

    async def _download(self, errand: Errand, variant: Variant, desired: DesiredModel) -> None:
        needed = on_devices(variant)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for digest, size in needed.items():
            await errand.blob(self._model, digest, size)
            self._device.site.tally.add("downloads")
        if mbit := self._device.member.kind.down_mbit:
            takes = sum(needed.values()) * 8e-6 / mbit
            await asyncio.sleep(max(0.0, takes - (loop.time() - begun)))
        self._device.spent(desired.rollout, sum(needed.values()))
        self._apply(Done(about=desired, phase=Phase.DOWNLOADING))  # hashed as it came

    def _over_budget(self, desired: DesiredModel, variant: Variant) -> str:
        """Why the update does not fit into the data budget; empty where it does."""
        found = bounds(self._device.configuration.data_budget, desired.data_budget_bytes)
        bound = found.rollout_bytes
        if self._device.member.fault is Fault.SMALL_BUDGET:
            bound = min(bound or SMALL_BUDGET_BYTES, SMALL_BUDGET_BYTES)
        need = cost(sum(on_devices(variant).values()))
        if bound is None or need <= bound:
            return ""
        return (
            f"budget: about {need / 1e6:.2f} MB are needed, {bound / 1e6:.2f} MB are left. "
            f"The data budget of this rollout is {bound / 1e6:.2f} MB."
        )

    async def _wait_for_budget(self, desired: DesiredModel, variant: Variant) -> None:
        while why := self._over_budget(desired, variant):
            if self._device.configuration.data_budget.when_spent == "refuse":
                raise _Refused(why)
            self._apply(Waiting(about=desired, reason=why))
            await asyncio.sleep(WAIT_S)

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

    async def _test(self, desired: DesiredModel) -> Event:
        device = self._device
        evidence = behaviour.test_evidence(device.member, await self._asked(desired), device.chance)
        assert evidence.latency is not None
        await asyncio.sleep(evidence.latency.p50_ms * behaviour.GOLDEN_SAMPLES / 1000)
        device.record(RecordKind.EVIDENCE, evidence)
        if why := behaviour.failing(evidence):
            return Fail(about=desired, reason=f"the test on the device failed: {why}")
        return Done(about=desired, phase=Phase.TESTING, baseline=self.state.proven)

    @staticmethod
    async def _switch(desired: DesiredModel) -> Event | None:
        """Go live within the time that the fleet said."""
        now = time.time()
        if desired.switch_by and now > desired.switch_by:
            return None
        await asyncio.sleep(max(0.0, desired.switch_at - now))
        return Done(about=desired, phase=Phase.PREPARED)

    async def _try(self, desired: DesiredModel) -> Event | None:
        device, state = self._device, self.state
        if state.passed is not None:
            return Done(about=desired, phase=Phase.TRIAL, baseline=state.passed)
        if device.member.fault is Fault.CRASHES:
            await self._crash()
            return None
        evidence, did, seconds = behaviour.trial_evidence(
            device.member, await self._asked(desired), state.baseline, device.site.fps,
            device.chance,
        )  # fmt: skip
        await asyncio.sleep(seconds)
        device.record(RecordKind.EVIDENCE, evidence)
        if why := behaviour.failing(evidence):
            return Fail(about=desired, reason=why)
        return Done(about=desired, phase=Phase.TRIAL, baseline=did)

    async def _crash(self) -> None:
        while self.state.phase is Phase.TRIAL:
            await asyncio.sleep(CRASH_S)
            self._device.lose_connection()
            await self._device.up.wait()
            self._apply(Restarted(crashed=True))

    async def _asked(self, desired: DesiredModel) -> Asked:
        device = self._device
        if self._variant is None:  # the simulator was started again meanwhile
            async with device.site.web.errand(device.member.device, device.key) as errand:
                self._variant = await self._resolve(errand, desired)
        return Asked(
            model=self._model,
            desired=desired,
            variant=self._variant,
            epoch=device.epoch,
            counter=device.counter,
        )

    def _apply(self, event: Event) -> ModelState:
        before, after = self.state, step(self.state, event)
        if after != before:
            self._device.site.tally.moved(before.phase, after.phase)
            self._count_running(-1)
            self.state = after
            self._count_running(1)
            if report(after) != report(before):
                self._device.report(self._model, report(after))
        return after

    def _count_running(self, number: int) -> None:
        if self.state.running is not None:
            name = f"{self._model}:{self.state.running.release_version}"
            self._device.site.tally.running[name] += number


class _Refused(EdgemlError):  # noqa: N818 -- an answer, and no fault
    """What a device refuses, through no fault of the release's behaviour."""


def _same_attempt(a: DesiredModel | None, b: DesiredModel | None) -> bool:
    return same_release(a, b) and a is not None and b is not None and a.attempt == b.attempt
