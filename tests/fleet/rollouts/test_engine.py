"""The engine against a simulated fleet: whatever devices, operators and crashes do."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts import (
    Advance,
    Assign,
    Complete,
    Decision,
    DeviceObservation,
    Halt,
    Policy,
    Restore,
    RolloutState,
    RolloutStatus,
    decide,
)
from fleet.rollouts.observe import Hold
from fleet.rollouts.policy import Limits, Wave
from tests.fleet.rollouts.observed import NOW, gate, state

NEXT = {
    None: Phase.RESOLVING,
    Phase.RESOLVING: Phase.DOWNLOADING,
    Phase.DOWNLOADING: Phase.TESTING,
    Phase.TESTING: Phase.TRIAL,
    Phase.TRIAL: Phase.COMMITTED,
}
MOVING = frozenset(NEXT)
TIMEOUT_S = 1000.0
replace = msgspec.structs.replace

policies = st.builds(
    lambda waves, soak, on_failure, limits: Policy(
        waves=waves, soak_s=soak, on_failure=on_failure, limits=limits
    ),
    st.sampled_from(
        [
            (Wave(count=1), Wave(percent=100)),
            (Wave(count=1), Wave(percent=30), Wave(percent=100)),
            (Wave(percent=50), Wave(count=2), Wave(percent=100)),
            (Wave(percent=100),),
        ]
    ),
    st.sampled_from([0.0, 60.0]),
    st.sampled_from(["rollback", "pause"]),
    st.builds(
        lambda flight, failures: Limits(
            in_flight=flight, max_failures=failures, device_timeout_s=TIMEOUT_S
        ),
        st.integers(1, 4),
        st.integers(0, 2),
    ),
)


class FleetMachine(RuleBasedStateMachine):
    """The persisted state is all there is: it is encoded and decoded again at every look."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.up_since = 0.0
        self.policy = Policy()
        self.stored = msgspec.json.encode(state())
        self.devices: dict[str, DeviceObservation] = {}
        self.vanished: set[str] = set()
        self.guilty: set[str] = set()  # devices that gave a reason to halt
        self.assigned_in: dict[str, int] = {}
        self.begun = False

    @property
    def rollout(self) -> RolloutState:
        """As the controller reads it after a restart."""
        return msgspec.json.decode(self.stored, type=RolloutState)

    def keep(self, rollout: RolloutState) -> None:
        self.stored = msgspec.json.encode(rollout)

    def put(self, name: str, **fields: object) -> None:
        self.devices[name] = replace(self.devices[name], **fields)

    @precondition(lambda self: not self.begun)
    @rule(policy=policies, number=st.integers(1, 8))
    def begin(self, policy: Policy, number: int) -> None:
        self.begun, self.policy = True, policy
        for index in range(number):
            self.join(index % 2)

    @precondition(lambda self: self.begun and len(self.devices) < 12)
    @rule(kind=st.integers(0, 2))
    def join(self, kind: int) -> None:
        """A device joins, early or late; the third kind is one that nothing fits."""
        name = f"cam-{len(self.devices)}"
        unfit = kind == 2
        self.devices[name] = DeviceObservation(
            device=name,
            hardware_class=("x86", "arm", "fpga")[kind],
            variant="" if unfit else "v1",
            unfit="nothing fits" if unfit else "",
        )

    @precondition(lambda self: self.begun)
    @rule(crash=st.booleans())
    def tick(self, crash: bool) -> None:
        """The controller looks; with a crash it decides, loses that, and decides again."""
        if crash:
            self.decide()
        self.carry_out(self.decide())

    def decide(self) -> Decision:
        return decide(
            self.policy, self.rollout, list(self.devices.values()), self.now, self.up_since
        )

    def carry_out(self, decision: Decision) -> None:
        rollout = self.rollout
        for action in decision.actions:
            match action:
                case Assign(device=name, variant=variant):
                    assert rollout.status is RolloutStatus.RUNNING
                    self.assigned_in.setdefault(name, rollout.wave)
                    self.put(
                        name,
                        assigned_variant=variant,
                        assigned_at=self.now,
                        phase=None,
                        reason="",
                        gates=(),
                    )
                case Restore(device=name):
                    assert rollout.status in {RolloutStatus.HALTED, RolloutStatus.ABORTED}
                    assert not self.devices[name].restored
                    self.put(name, restored=True)
                case Hold(since=since):
                    rollout = replace(rollout, wave_held_since=since)
                case Advance(wave=wave):
                    self.check_closed(decision.gates)
                    assert wave > rollout.wave
                    rollout = replace(rollout, wave=wave, wave_held_since=None)
                case Complete():
                    self.check_closed(decision.gates)
                    rollout = replace(rollout, status=RolloutStatus.COMPLETED)
                case Halt(reason=reason):
                    self.check_halt()
                    rollout = replace(rollout, status=RolloutStatus.HALTED, reason=reason)
        self.keep(rollout)

    def check_closed(self, gates: tuple[GateResult, ...]) -> None:
        """A wave ends only if its gates pass, and if what they say is true of the devices."""
        assert gates
        assert all(g.result is Verdict.PASS for g in gates)
        self.note_late()
        for name in self.assigned_in:
            device = self.devices[name]
            honest = device.phase is Phase.COMMITTED and device.gates
            assert honest or device.phase is Phase.REFUSED or name in self.guilty
        assert len(self.guilty) <= self.policy.limits.max_failures

    def check_halt(self) -> None:
        """It stops only for more failures than are allowed, or a class that can show nothing."""
        self.note_late()
        classes: dict[str, list[bool]] = {}
        for name in self.assigned_in:
            if self.devices[name].phase is not Phase.REFUSED:
                classes.setdefault(self.devices[name].hardware_class, []).append(
                    name in self.guilty
                )
        hopeless = any(all(guilty) for guilty in classes.values())
        assert len(self.guilty) > self.policy.limits.max_failures or hopeless

    def note_late(self) -> None:
        for name, device in self.devices.items():
            at, phase = device.assigned_at, device.phase
            known = at is not None and max(at, device.last_seen or 0.0) >= self.up_since
            late = known and self.now - max(at or 0.0, self.up_since) > TIMEOUT_S
            done = phase is Phase.REFUSED or (phase is Phase.COMMITTED and device.gates)
            if late and not done:
                self.guilty.add(name)
            elif done and not any(g.result is Verdict.FAIL for g in device.gates):
                self.guilty.discard(name)

    @precondition(lambda self: self.begun)
    @rule()
    def settle(self) -> None:
        """The controller looks until there is nothing to do, and the soak passes."""
        for _ in range(20):
            decision = self.decide()
            self.carry_out(decision)
            if not decision.actions:
                break
        self.now += 61.0

    @precondition(lambda self: self.begun)
    @rule(seconds=st.sampled_from([1.0, 61.0, TIMEOUT_S + 1]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.begun)
    @rule(down=st.sampled_from([0.0, 10 * TIMEOUT_S]))
    def restart(self, down: float) -> None:
        """The fleet was down: by that alone no device has failed."""
        self.note_late()
        self.now += down
        self.up_since = self.now

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        """A device says something that changes nothing."""
        self.put(data.draw(st.sampled_from(sorted(self.devices))), last_seen=self.now)

    def moving(self) -> list[str]:
        return [
            name
            for name, d in self.devices.items()
            if d.assigned_at is not None
            and d.phase in MOVING
            and not d.restored
            and name not in self.vanished
        ]

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self.moving()))

    @precondition(lambda self: self.moving())
    @rule(data=st.data(), steps=st.integers(1, 5))
    def go_on(self, data: st.DataObject, steps: int) -> None:
        name = self.pick(data)
        for _ in range(steps):
            phase = self.devices[name].phase
            if phase in NEXT:
                gates = (gate(),) if NEXT[phase] is Phase.COMMITTED else ()
                self.put(name, phase=NEXT[phase], gates=gates)

    @precondition(lambda self: self.moving())
    @rule(data=st.data(), with_evidence=st.booleans())
    def roll_back(self, data: st.DataObject, with_evidence: bool) -> None:
        name = self.pick(data)
        self.guilty.add(name)
        gates = (gate(Verdict.FAIL),) if with_evidence else ()
        self.put(name, phase=Phase.ROLLED_BACK, reason="it did badly", gates=gates)

    @precondition(lambda self: self.moving())
    @rule(data=st.data(), silent=st.booleans())
    def lie(self, data: st.DataObject, silent: bool) -> None:
        """It says that it committed, though its evidence fails or there is none."""
        name = self.pick(data)
        if not silent:
            self.guilty.add(name)
        self.put(name, phase=Phase.COMMITTED, gates=() if silent else (gate(Verdict.FAIL),))

    @precondition(lambda self: self.moving())
    @rule(data=st.data(), replanned=st.booleans())
    def refuse(self, data: st.DataObject, replanned: bool) -> None:
        name = self.pick(data)
        variant = f"{self.devices[name].assigned_variant}+" if replanned else ""
        self.put(name, phase=Phase.REFUSED, reason="no room", gates=())
        self.put(name, variant=variant or self.devices[name].variant)

    @precondition(lambda self: self.moving())
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        self.vanished.add(self.pick(data))

    @precondition(lambda self: self.vanished)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        self.vanished.discard(data.draw(st.sampled_from(sorted(self.vanished))))

    @precondition(lambda self: self.begun)
    @rule(to=st.sampled_from(["pause", "resume", "abort"]))
    def operate(self, to: str) -> None:
        rollout = self.rollout
        match to, rollout.status:
            case "pause", RolloutStatus.RUNNING:
                status = RolloutStatus.PAUSED
            case "resume", RolloutStatus.PAUSED:
                status = RolloutStatus.RUNNING
            case "abort", RolloutStatus.RUNNING | RolloutStatus.PAUSED:
                status = RolloutStatus.ABORTED
            case _:
                return
        self.keep(replace(rollout, status=status, wave_held_since=None, reason="an operator did"))

    @invariant()
    def the_limit_in_flight_holds(self) -> None:
        assert (
            sum(d.assigned_at is not None and d.phase in MOVING for d in self.devices.values())
            <= self.policy.limits.in_flight
        )

    @invariant()
    def nothing_is_given_to_a_device_that_nothing_fits(self) -> None:
        assert not any(d.unfit and d.assigned_at for d in self.devices.values())

    @invariant()
    def the_answer_depends_on_nothing_but_what_is_stored(self) -> None:
        devices = list(self.devices.values())
        one = decide(self.policy, self.rollout, devices, self.now)
        assert one == decide(self.policy, self.rollout, devices[::-1], self.now)
        assert one.sentence or self.rollout.status is RolloutStatus.RUNNING

    @invariant()
    def a_wave_gives_the_release_to_no_more_than_it_says(self) -> None:
        able = sum(bool(d.variant) for d in self.devices.values())
        waves = self.policy.waves[: self.rollout.wave + 1]
        most = max(wave.size(able) for wave in waves) if able else 0
        refused = sum(d.phase is Phase.REFUSED for d in self.devices.values())
        assert len(self.assigned_in) <= most + refused

    def teardown(self) -> None:
        """Once all were heard from it stands still: complete, or wound down as the policy says."""
        if not self.begun:
            return
        for name in self.devices:
            self.put(name, last_seen=self.now)
        self.operate("resume")
        for _ in range(200):
            for name in self.moving():
                self.put(name, phase=Phase.COMMITTED, gates=(gate(),))
            decision = self.decide()
            self.carry_out(decision)
            self.vanished.clear()
            if not decision.actions:
                self.now += 61.0
            if self.rollout.status is RolloutStatus.COMPLETED:
                break
        status = self.rollout.status
        touched = [d for d in self.devices.values() if d.assigned_at is not None]
        if status in {RolloutStatus.HALTED, RolloutStatus.ABORTED}:
            back = self.policy.on_failure == "rollback"
            assert all(d.restored is back for d in touched)
        elif status is RolloutStatus.RUNNING:
            able = [d for d in self.devices.values() if d.variant and d.phase is not Phase.REFUSED]
            assert not able
        assert self.decide().actions == ()


FleetMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestFleet = FleetMachine.TestCase
