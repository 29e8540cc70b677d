"""The engine against a simulated fleet: whatever devices, operators and crashes do.

Two rollouts of one model run over the same devices. What is persisted is all that there is: it is
encoded and decoded again at every look, and a look may be lost before it is carried out.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts import (
    Advance,
    Approval,
    Assign,
    Complete,
    Decision,
    DeviceObservation,
    Figure,
    Halt,
    Hold,
    Override,
    Pause,
    Policy,
    Restore,
    RolloutState,
    RolloutStatus,
    Waiting,
    decide,
)
from fleet.rollouts.failures import Retries, Threshold
from fleet.rollouts.gates import FAILURES
from fleet.rollouts.policy import Gates, Limits, Metric, Wave
from fleet.rollouts.standing import failure, is_done, is_refusing
from fleet.rollouts.timing import Rate, Window, opens_in
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
DAY_S = 86400.0
ENDED = {RolloutStatus.HALTED, RolloutStatus.ABORTED, RolloutStatus.COMPLETED}
replace = msgspec.structs.replace

policies = st.builds(
    Policy,
    waves=st.sampled_from(
        [
            (Wave(count=1), Wave(percent=100)),
            (Wave(count=1), Wave(percent=30), Wave(percent=100)),
            (Wave(percent=50, soak_s=0.0), Wave(count=2), Wave(percent=100)),
            (Wave(percent=100),),
            (Wave(percent=50, success_percent=50), Wave(percent=100)),
        ]
    ),
    soak_s=st.sampled_from([0.0, 60.0]),
    on_failure=st.sampled_from(["rollback", "rollback-failed", "pause"]),
    approval=st.sampled_from([False, False, "before-start", "each-wave"]),
    membership=st.sampled_from(["dynamic", "dynamic", "continuous"]),
    windows=st.sampled_from([(), (), (Window(begins="08:00", ends="20:00"),)]),
    rate=st.sampled_from(
        [None, None, Rate(per_minute=1, increment_factor=2, increase_after_given=2)]
    ),
    retries=st.sampled_from(
        [Retries(), Retries(rolled_back=1, timed_out=2, cool_down_s=100.0), Retries(gate=1)]
    ),
    thresholds=st.sampled_from([(), (), (Threshold(percent=40, minimum=3, action="pause"),)]),
    gates=st.sampled_from(
        [Gates(), Gates(metrics=(Metric(name="drift", max=0.5, min_samples=10),))]
    ),
    limits=st.builds(
        Limits,
        in_flight=st.integers(1, 4),
        max_failures=st.sampled_from([None, 0, 1, 2]),
        device_timeout_s=st.just(TIMEOUT_S),
        queued=st.sampled_from(["fail", "wait"]),
    ),
)


@dataclass
class Run:
    """One rollout: its policy, what is stored of it, and each device's place in it."""

    policy: Policy
    stored: bytes
    places: dict[str, DeviceObservation] = field(default_factory=dict)
    asked_again: dict[str, int] = field(default_factory=dict)
    last: Decision | None = None

    @property
    def state(self) -> RolloutState:
        """As the controller reads it after a restart."""
        return msgspec.json.decode(self.stored, type=RolloutState)

    def keep(self, **fields: object) -> None:
        self.stored = msgspec.json.encode(replace(self.state, **fields))

    @property
    def is_open(self) -> bool:
        return self.state.status in {RolloutStatus.RUNNING, RolloutStatus.PAUSED}


class FleetMachine(RuleBasedStateMachine):
    """Devices that succeed, fail, vanish, lie, refuse, come back and join late."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.up_since = 0.0
        self.runs: list[Run] = []
        self.devices: dict[str, DeviceObservation] = {}
        self.vanished: set[str] = set()

    @precondition(lambda self: not self.runs)
    @rule(one=policies, other=policies, number=st.integers(1, 8), draft=st.booleans())
    def begin(self, one: Policy, other: Policy, number: int, draft: bool) -> None:
        for name, policy in (("one", one), ("two", other)):
            status = RolloutStatus.DRAFT if draft and name == "two" else RolloutStatus.RUNNING
            begun = state(id=name, release=f"sha256:{name}", status=status)
            self.runs.append(Run(policy, msgspec.json.encode(begun)))
        for index in range(number):
            self.join(index % 2, 0)

    @precondition(lambda self: self.runs and len(self.devices) < 12)
    @rule(
        kind=st.integers(0, 2),
        hours=st.sampled_from([0, 9, -9]),
        windows=st.sampled_from([(), (), (Window(begins="10:00", ends="18:00"),)]),
    )
    def join(self, kind: int, hours: int, windows: tuple[Window, ...] = ()) -> None:
        """A device joins, early or late; the third kind is one that nothing fits."""
        name = f"cam-{len(self.devices):02}"
        unfit = kind == 2
        self.devices[name] = DeviceObservation(
            device=name,
            hardware_class=("x86", "arm", "fpga")[kind],
            variant="" if unfit else "v1",
            unfit="nothing fits" if unfit else "",
            utc_offset_s=hours * 3600,
            windows=windows,
        )

    # What the controller does.

    def observe(self, run: Run) -> list[DeviceObservation]:
        others = [o for o in self.runs if o is not run and o.is_open]
        seen = []
        for name, device in self.devices.items():
            place = run.places.get(name)
            busy = any(name in o.places and not o.places[name].restored for o in others)
            if place is None:
                seen.append(replace(device, busy=busy))
            else:
                facts = {
                    key: getattr(device, key)
                    for key in ("variant", "unfit", "last_seen", "utc_offset_s", "windows")
                }
                seen.append(replace(place, busy=busy and place.restored, **facts))
        return seen

    def decide(self, run: Run) -> Decision:
        return decide(run.policy, run.state, self.observe(run), self.now, self.up_since)

    @precondition(lambda self: self.runs)
    @rule(crash=st.booleans(), second=st.booleans())
    def tick(self, crash: bool, second: bool) -> None:
        """The controller looks; with a crash it decides, loses that, and decides again."""
        run = self.runs[second]
        if crash:
            self.decide(run)
        self.carry_out(run, self.decide(run))

    @precondition(lambda self: self.runs)
    @rule()
    def settle(self) -> None:
        """The controller looks until there is nothing to do, and the soak passes."""
        for _ in range(10):
            if not sum(self.carry_out(run, self.decide(run)) for run in self.runs):
                break
        self.now += 61.0

    def carry_out(self, run: Run, decision: Decision) -> int:
        run.last = decision
        self.check_explained(run, decision)
        seen = {d.device: d for d in self.observe(run)}
        self.check_pace(run, decision, seen)
        for action in decision.actions:
            match action:
                case Assign(device=name, variant=variant):
                    self.check_assign(run, seen[name], variant)
                    tries = run.places[name].tries + 1 if name in run.places else 1
                    run.places[name] = replace(
                        self.devices[name],
                        assigned_variant=variant,
                        assigned_at=self.now,
                        tries=tries,
                    )
                case Restore(device=name):
                    self.check_restore(run, seen[name])
                    run.places[name] = replace(run.places[name], restored=True, again=False)
                case Hold(since=since):
                    run.keep(wave_held_since=since)
                case Advance(wave=wave):
                    self.check_closed(run, decision.gates)
                    assert wave > run.state.wave
                    run.keep(wave=wave, wave_held_since=None)
                case Complete():
                    self.check_closed(run, decision.gates)
                    assert run.policy.membership != "continuous"
                    run.keep(status=RolloutStatus.COMPLETED)
                case Halt(reason=reason) | Pause(reason=reason):
                    self.check_stop(decision.gates)
                    pauses = isinstance(action, Pause)
                    status = RolloutStatus.PAUSED if pauses else RolloutStatus.HALTED
                    run.keep(status=status, reason=reason, wave_held_since=None)
        return len(decision.actions)

    # What must hold of what it does.

    def check_explained(self, run: Run, decision: Decision) -> None:
        """Every decision has a sentence; one that waits says for what, gates have reasons."""
        assert decision.sentence
        assert all(g.reason for g in decision.gates)
        waits = run.state.status is RolloutStatus.RUNNING and not decision.actions
        assert not waits or decision.waits_for is not Waiting.NOTHING
        if decision.waits_for is Waiting.GATE:
            assert any(g.result is Verdict.UNDECIDED for g in decision.gates)

    def check_assign(self, run: Run, seen: DeviceObservation, variant: str) -> None:
        rollout, policy = run.state, run.policy
        assert rollout.status is RolloutStatus.RUNNING
        assert variant == self.devices[seen.device].variant != ""
        assert not seen.busy
        for windows in (policy.windows, self.devices[seen.device].windows):
            assert opens_in(windows, self.now, seen.utc_offset_s) == 0
        approved = {approval.wave for approval in rollout.approvals}
        needed = {"each-wave": rollout.wave, "before-start": 0}.get(str(policy.approval))
        assert needed is None or needed in approved
        if seen.assigned_at is not None and not (seen.again or seen.restored):
            found = failure(seen, rollout.release, policy, self.now, self.up_since)
            if found is None:  # planned anew
                assert seen.phase is Phase.REFUSED
                assert seen.variant != seen.assigned_variant
            else:  # tried again: not too often, and not too soon
                assert seen.tries <= policy.retries.after(found.kind)
                assert found.at + policy.retries.cool_down_s <= self.now

    def check_pace(self, run: Run, decision: Decision, seen: dict[str, DeviceObservation]) -> None:
        given = [a.device for a in decision.actions if isinstance(a, Assign)]
        assert len(set(given)) == len(given)
        if not given or run.policy.rate is None:
            return
        times = [d.assigned_at for d in seen.values() if d.assigned_at is not None]
        lately = sum(self.now - at < 60 for at in times)
        done = sum(is_done(d, run.state.release) for d in seen.values())
        assert lately + len(given) <= run.policy.rate.now(len(times), done)

    def check_restore(self, run: Run, seen: DeviceObservation) -> None:
        assert run.state.status in {RolloutStatus.HALTED, RolloutStatus.ABORTED}
        assert not seen.restored
        assert run.policy.on_failure != "pause"
        if run.policy.on_failure == "rollback-failed":
            assert failure(seen, run.state.release, run.policy, self.now, self.up_since)

    def check_closed(self, run: Run, gates: tuple[GateResult, ...]) -> None:
        """A wave ends only if its gates pass, and if what they say is true of the devices."""
        assert gates
        assert all(g.result is Verdict.PASS for g in gates)
        rollout, policy = run.state, run.policy
        given = [d for d in self.observe(run) if d.assigned_at is not None]
        failed = [d for d in given if failure(d, rollout.release, policy, self.now, self.up_since)]
        done = [d for d in given if is_done(d, rollout.release) and d not in failed]
        refusing = [d for d in given if is_refusing(d)]
        overridden = {one.gate for one in rollout.overrides if one.wave == rollout.wave}
        allowed = policy.failures_allowed
        if FAILURES not in overridden and allowed is not None:
            assert len(failed) <= allowed
        enough = policy.wave(rollout.wave).success_percent
        if enough is None and FAILURES not in overridden:
            assert len(done) + len(failed) + len(refusing) == len(given)
        assert all(d.gates for d in done)

    def check_stop(self, gates: tuple[GateResult, ...]) -> None:
        assert any(g.result is Verdict.FAIL for g in gates)

    # What devices do.

    def moving(self) -> list[tuple[int, str]]:
        return [
            (index, name)
            for index, run in enumerate(self.runs)
            for name, d in run.places.items()
            if d.phase in MOVING and not d.restored and name not in self.vanished
        ]

    def say(self, at: tuple[int, str], phase: Phase, **fields: object) -> None:
        index, name = at
        places = self.runs[index].places
        places[name] = replace(places[name], phase=phase, settled_at=self.now, **fields)
        self.devices[name] = replace(self.devices[name], last_seen=self.now)

    @precondition(lambda self: self.moving())
    @rule(data=st.data(), steps=st.integers(1, 5), n=st.sampled_from([20, 2]))
    def go_on(self, data: st.DataObject, steps: int, n: int) -> None:
        at = data.draw(st.sampled_from(self.moving()))
        for _ in range(steps):
            phase = self.runs[at[0]].places[at[1]].phase
            if phase in NEXT:
                self.say(at, NEXT[phase], **(self.shown(n=n) if phase is Phase.TRIAL else {}))

    def shown(self, drift: float = 0.1, n: int = 20) -> dict[str, Any]:
        return {"gates": (gate(),), "figures": {"drift": Figure(value=drift, n=n)}}

    @precondition(lambda self: self.moving())
    @rule(data=st.data(), with_evidence=st.booleans(), crashed=st.booleans())
    def roll_back(self, data: st.DataObject, with_evidence: bool, crashed: bool) -> None:
        at = data.draw(st.sampled_from(self.moving()))
        gates = (gate(Verdict.FAIL),) if with_evidence else ()
        reason = "the agent crashed 3 times in a row with it" if crashed else "it did badly"
        self.say(at, Phase.ROLLED_BACK, reason=reason, gates=gates)

    @precondition(lambda self: self.moving())
    @rule(data=st.data(), how=st.sampled_from(["silent", "failing", "drifting", "doubtful"]))
    def lie(self, data: st.DataObject, how: str) -> None:
        """It says that it committed, though its evidence fails, is missing or says too little."""
        shown: dict[str, Any] = {
            "silent": {},
            "failing": {"gates": (gate(Verdict.FAIL),)},
            "drifting": self.shown(drift=0.9),
            "doubtful": self.shown(n=2),
        }[how]
        self.say(data.draw(st.sampled_from(self.moving())), Phase.COMMITTED, **shown)

    @precondition(lambda self: self.moving())
    @rule(data=st.data(), replanned=st.booleans())
    def refuse(self, data: st.DataObject, replanned: bool) -> None:
        at = data.draw(st.sampled_from(self.moving()))
        self.say(at, Phase.REFUSED, reason="no room")
        if replanned:
            known = self.devices[at[1]]
            self.devices[at[1]] = replace(known, variant=f"{known.variant}+")

    @precondition(lambda self: self.moving())
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        self.vanished.add(data.draw(st.sampled_from(self.moving()))[1])

    @precondition(lambda self: self.vanished)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        self.vanished.discard(data.draw(st.sampled_from(sorted(self.vanished))))

    # What time and operators do.

    @precondition(lambda self: self.runs)
    @rule(seconds=st.sampled_from([1.0, 61.0, TIMEOUT_S + 1, DAY_S / 2]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.runs)
    @rule(down=st.sampled_from([0.0, 10 * TIMEOUT_S]))
    def restart(self, down: float) -> None:
        """The fleet was down: by that alone no device has failed."""
        self.now += down
        self.up_since = self.now
        for run in self.runs:
            for device in self.observe(run):
                found = failure(device, run.state.release, run.policy, self.now, self.up_since)
                assert found is None or found.kind.value not in {"timed_out", "no_evidence"}

    @precondition(lambda self: self.runs)
    @rule(
        second=st.booleans(),
        to=st.sampled_from(["start", "pause", "resume", "abort", "approve"]),
    )
    def operate(self, second: bool, to: str) -> None:
        run = self.runs[second]
        match to, run.state.status:
            case "start", RolloutStatus.DRAFT:
                run.keep(status=RolloutStatus.RUNNING)
            case "pause", RolloutStatus.RUNNING:
                run.keep(status=RolloutStatus.PAUSED, wave_held_since=None, reason="lunch")
            case "resume", RolloutStatus.PAUSED:
                run.keep(status=RolloutStatus.RUNNING)
            case "abort", RolloutStatus.RUNNING | RolloutStatus.PAUSED | RolloutStatus.DRAFT:
                run.keep(status=RolloutStatus.ABORTED, reason="an operator did")
            case "approve", RolloutStatus.RUNNING:
                wave = run.state.wave if run.policy.approval == "each-wave" else 0
                given = Approval(wave=wave, by="anna", at=self.now)
                run.keep(approvals=(*run.state.approvals, given))

    @precondition(lambda self: self.runs)
    @rule(second=st.booleans(), data=st.data())
    def override(self, second: bool, data: st.DataObject) -> None:
        run = self.runs[second]
        gates = run.last.gates if run.last else ()
        bad = [g for g in gates if g.result is not Verdict.PASS]
        if not bad or not run.is_open:
            return
        found = data.draw(st.sampled_from(bad))
        one = Override(
            gate=found.name,
            wave=run.state.wave,
            result=found.result,
            by="anna",
            at=self.now,
            reason="known",
        )
        run.keep(overrides=(*run.state.overrides, one))

    @precondition(lambda self: self.runs)
    @rule(second=st.booleans())
    def retry(self, second: bool) -> None:
        """An operator has all that failed or was taken back tried again."""
        run = self.runs[second]
        if run.state.status in {RolloutStatus.DRAFT, RolloutStatus.ABORTED}:
            return
        others = [o for o in self.runs if o is not run and o.is_open]
        for name, place in run.places.items():
            if any(name in o.places and not o.places[name].restored for o in others):
                return  # the service refuses: another rollout has one of them by now
            if place.restored or place.phase in {Phase.ROLLED_BACK, Phase.REFUSED}:
                run.places[name] = replace(place, again=True)
        run.keep(status=RolloutStatus.RUNNING, wave_held_since=None)

    # What holds at every moment.

    @invariant()
    def never_more_than_the_limit_in_flight(self) -> None:
        for run in self.runs:
            flying = sum(d.phase in MOVING for d in run.places.values())
            assert flying <= run.policy.limits.in_flight

    @invariant()
    def never_a_device_in_two_rollouts_of_one_model(self) -> None:
        for name in self.devices:
            owners = [r for r in self.runs if r.is_open and name in r.places]
            assert sum(not r.places[name].restored for r in owners) <= 1

    @invariant()
    def never_a_device_that_nothing_fits(self) -> None:
        assert not any(d.unfit and d.assigned_at for r in self.runs for d in self.observe(r))

    @invariant()
    def progress_survives_a_restart_and_depends_on_nothing_else(self) -> None:
        for run in self.runs:
            devices = self.observe(run)
            again = msgspec.json.decode(msgspec.json.encode(run.state), type=RolloutState)
            one = decide(run.policy, run.state, devices, self.now)
            assert one == decide(run.policy, again, devices[::-1], self.now)

    @invariant()
    def a_wave_gives_the_release_to_no_more_than_it_says(self) -> None:
        for run in self.runs:
            able = sum(bool(d.variant) for d in self.devices.values())
            waves = run.policy.waves[: run.state.wave + 1]
            most = max(wave.size(able) for wave in waves) if able else 0
            refused = sum(d.phase is Phase.REFUSED for d in run.places.values())
            again = sum(d.tries > 1 for d in run.places.values())  # it may have refused before
            assert len(run.places) <= most + refused + again

    def teardown(self) -> None:
        """Once all were heard from, each stands still: complete, or wound down as it should."""
        self.vanished.clear()
        for name, device in self.devices.items():
            self.devices[name] = replace(device, last_seen=self.now)
        for second in range(len(self.runs)):
            for to in ("start", "resume"):
                self.operate(bool(second), to)
        for _ in range(150):
            for at in self.moving():
                self.say(at, Phase.COMMITTED, **self.shown())
            for second in range(len(self.runs)):
                self.operate(bool(second), "approve")
            if not sum(self.carry_out(run, self.decide(run)) for run in self.runs):
                if all(r.state.status in ENDED for r in self.runs):
                    break
                self.now += 61.0 if _ % 3 else DAY_S / 4
        for run in self.runs:
            self.check_end(run)

    def check_end(self, run: Run) -> None:
        rollout, seen = run.state, self.observe(run)
        given = [d for d in seen if d.assigned_at is not None]
        decision = self.decide(run)
        assert not [a for a in decision.actions if not isinstance(a, Hold)]
        match rollout.status:
            case RolloutStatus.HALTED | RolloutStatus.ABORTED:
                everyone = run.policy.on_failure == "rollback"
                for d in given:
                    bad = failure(d, rollout.release, run.policy, self.now, self.up_since)
                    if run.policy.on_failure != "pause" and (everyone or bad):
                        assert d.restored
            case RolloutStatus.RUNNING:
                doubt = decision.waits_for is Waiting.GATE
                continuous = run.policy.membership == "continuous"
                nobody = decision.waits_for is Waiting.DEVICES
                assert doubt or continuous or nobody, decision


FleetMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestFleet = FleetMachine.TestCase


@pytest.mark.parametrize("phase", [Phase.REFUSED])
def test_a_device_that_refuses_is_planned_anew_and_is_no_failure(phase: Phase) -> None:
    known = DeviceObservation(
        device="a",
        hardware_class="x86",
        variant="v2",
        assigned_variant="v1",
        assigned_at=NOW,
        phase=phase,
    )
    policy = Policy(waves=(Wave(count=1),))
    assert failure(known, "r", policy, NOW + 10 * DAY_S) is None
    decision = decide(policy, state(), [known], NOW + 10 * DAY_S)
    assert decision.actions == (Assign(device="a", variant="v2"),)
