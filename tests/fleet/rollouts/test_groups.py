"""Devices that switch together: prepare, then commit, over links that lose and devices that die.

The simulated devices do what the agent's own machine does with what they have heard; what the
fleet wants of them is kept, and heard late, or never. At rest no group is split.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloud_sync.evidence import Verdict
from cloud_sync.messages import Phase
from edgeml.errors import UserError
from fleet.rollouts import (
    Advance,
    Assign,
    Complete,
    Decision,
    DeviceObservation,
    Halt,
    Hold,
    Pause,
    Policy,
    Proceed,
    Restore,
    Retreat,
    RolloutStatus,
    Waiting,
    decide,
    parse_policy,
)
from fleet.rollouts.failures import Retries
from fleet.rollouts.policy import Limits, Wave
from fleet.rollouts.together import Together
from tests.fleet.rollouts.observed import NOW, device, gate, state

TOGETHER = Together(label="line", prepare_timeout_s=100, commit_timeout_s=70)
POLICY = Policy(waves=(Wave(percent=100),), soak_s=0.0, together=TOGETHER)
LIVE = gate(name="live.error_rate")
replace = msgspec.structs.replace


def member(
    name: str, phase: Phase | None, until: str = "prepared", **fields: Any
) -> DeviceObservation:
    start = {"group": "7", "until": until, "until_at": NOW - 10, "assigned_at": NOW - 10}
    return device(name, phase=phase, assigned_variant="sha256:v", **{**start, **fields})


def decided(*devices: DeviceObservation, at: float = NOW, policy: Policy = POLICY) -> Decision:
    return decide(policy, state(), devices, at)


def test_a_group_is_given_the_release_to_prepare_it_and_a_device_without_the_label_at_once() -> (
    None
):
    found = decided(device("a", group="7"), device("b", group="7"), device("c"))
    assert found.actions == (
        Assign(device="c", variant="sha256:v"),
        Assign(device="a", variant="sha256:v", group="7", until="prepared"),
        Assign(device="b", variant="sha256:v", group="7", until="prepared"),
    )


def test_it_waits_until_all_are_prepared_and_names_who_is_not() -> None:
    found = decided(member("a", Phase.PREPARED), member("b", Phase.TESTING))
    assert not found.actions
    assert "line=7 waits for 1 of 2 to be prepared (b)" in found.sentence


def test_all_that_are_prepared_switch_at_one_time_and_commit_when_all_trials_passed() -> None:
    found = decided(member("a", Phase.PREPARED), member("b", Phase.PREPARED))
    [switch] = found.actions
    assert isinstance(switch, Proceed)
    assert (switch.devices, switch.until, switch.at) == (("a", "b"), "trial", NOW + 2)
    passed: dict[str, Any] = {"until": "trial", "gates": (LIVE,)}
    found = decided(member("a", Phase.TRIAL, **passed), member("b", Phase.TRIAL, until="trial"))
    assert not found.actions
    assert "waits for 1 of 2 to pass their trials (b)" in found.sentence
    found = decided(member("a", Phase.TRIAL, **passed), member("b", Phase.TRIAL, **passed))
    [commit] = found.actions
    assert isinstance(commit, Proceed)
    assert (commit.devices, commit.until, commit.at) == (("a", "b"), "", 0.0)


def test_evidence_that_fails_is_no_trial_that_passed() -> None:
    bad = gate(Verdict.FAIL, name="live.error_rate")
    one = member("a", Phase.TRIAL, until="trial", gates=(bad,))
    assert not any(isinstance(action, Proceed) for action in decided(one).actions)


def test_one_that_is_missing_when_the_time_is_over_takes_the_group_back_or_is_left() -> None:
    devices = (member("a", Phase.PREPARED), member("b", Phase.DOWNLOADING))
    assert not decided(*devices, at=NOW + 90).actions
    [back] = decided(*devices, at=NOW + 91).actions
    assert isinstance(back, Retreat)
    assert back.devices == ("a", "b")
    assert "b was not prepared within 100 s" in back.reason
    without = replace(POLICY, together=replace(TOGETHER, on_missing="without"))
    go, left = decided(*devices, at=NOW + 91, policy=without).actions
    assert isinstance(go, Proceed)
    assert isinstance(left, Proceed)
    assert (go.devices, go.until, left.devices, left.until) == (("a",), "trial", ("b",), "")


def test_the_time_does_not_run_while_the_fleet_does_not_listen() -> None:
    devices = (member("a", Phase.PREPARED), member("b", Phase.DOWNLOADING))
    late = NOW + 1000
    assert not decide(POLICY, state(), devices, late, up_since=late - 50).actions


def test_after_a_failure_that_is_allowed_the_group_is_back_and_the_others_go_on() -> None:
    policy = replace(POLICY, limits=Limits(max_failures=1))
    one = (member("a", Phase.TRIAL, until="trial"), member("b", Phase.ROLLED_BACK, until="trial"))
    other = device("c", group="8")
    found = decided(*one, other, policy=policy)
    assert [type(action) for action in found.actions] == [Retreat]
    back = [replace(d, restored=True) for d in one]
    found = decided(*back, other, policy=policy)
    assert found.actions == (Assign(device="c", variant="sha256:v", group="8", until="prepared"),)


def test_a_device_that_cannot_take_part_leaves_its_group_out_or_is_left_itself() -> None:
    devices = (
        device("a", group="7"),
        device("b", group="7", variant="", unfit="its agent is too old"),
        device("c"),
    )
    found = decided(*devices)
    assert found.actions == (Assign(device="c", variant="sha256:v"),)
    nobody = decided(*devices[:2])
    assert "its group line=7 waits for b: its agent is too old" in nobody.sentence
    without = replace(POLICY, together=replace(TOGETHER, on_missing="without"))
    assert [a.device for a in decided(*devices, policy=without).actions] == ["c", "a"]  # type: ignore[union-attr]


def test_waves_count_groups_and_a_group_that_is_larger_than_the_limit_goes_alone() -> None:
    devices = [device(f"{g}-{i}", group=g) for g in "abc" for i in range(3)]
    waves = (Wave(count=1), Wave(percent=100))
    policy = replace(POLICY, waves=waves, limits=Limits(in_flight=2))
    found = decided(*devices, policy=policy)
    assert [a.device for a in found.actions] == ["a-0", "a-1", "a-2"]  # type: ignore[union-attr]
    done = [
        member(d.device, Phase.COMMITTED, until="", gates=(LIVE,), group="a", until_at=NOW)
        for d in devices[:3]
    ]
    seen = [*done, *devices[3:]]
    found = decide(policy, state(wave_held_since=NOW - 1), seen, NOW)
    assert found.actions == (Advance(wave=1),)
    found = decide(policy, state(wave=1), seen, NOW)
    assert [a.device for a in found.actions] == ["b-0", "b-1", "b-2"]  # type: ignore[union-attr]


def test_who_joins_a_group_waits_while_it_switches_and_then_follows_alone() -> None:
    fresh = device("z", group="7")
    found = decided(member("a", Phase.PREPARED), member("b", Phase.TESTING), fresh)
    assert not found.actions
    done = member("a", Phase.COMMITTED, until="", gates=(LIVE,), until_at=NOW)
    found = decided(done, fresh)
    assert found.actions == (Assign(device="z", variant="sha256:v", group="7"),)


def test_a_commit_timeout_that_no_trial_can_meet_is_refused_with_its_line() -> None:
    with pytest.raises(UserError, match=r"Line 2.*commit_timeout_s is less than a trial takes"):
        parse_policy('[together]\ncommit_timeout_s = 10\nlabel = "site"\n')


def test_a_member_that_goes_back_later_takes_its_group_back_and_one_that_joined_does_not() -> None:
    policy = replace(POLICY, limits=Limits(max_failures=1))
    done = member("a", Phase.COMMITTED, until="", gates=(LIVE,), until_at=NOW)
    bad = member("b", Phase.ROLLED_BACK, until="", until_at=NOW)
    assert [type(action) for action in decided(done, bad, policy=policy).actions] == [Retreat]
    joined = replace(bad, until_at=bad.assigned_at)
    assert not any(isinstance(a, Retreat) for a in decided(done, joined, policy=policy).actions)


@pytest.mark.parametrize("status", [RolloutStatus.ABORTED, RolloutStatus.HALTED])
def test_a_rollout_that_ends_leaves_no_group_half_way_whatever_is_done_on_failure(
    status: RolloutStatus,
) -> None:
    policy = replace(POLICY, on_failure="pause")
    half = (member("a", Phase.TRIAL, until="trial"), member("b", Phase.PREPARED, until="trial"))
    done = member("c", Phase.COMMITTED, until="", gates=(LIVE,), until_at=NOW, group="8")
    found = decide(policy, state(status=status, reason="enough"), (*half, done), NOW)
    assert found.actions == (Restore(device="a"), Restore(device="b"))


def test_while_it_is_paused_a_group_that_has_switched_commits_and_none_switches() -> None:
    paused = state(status=RolloutStatus.PAUSED, reason="lunch")
    assert not decide(POLICY, paused, [member("a", Phase.PREPARED)], NOW).actions
    passed = member("a", Phase.TRIAL, until="trial", gates=(LIVE,))
    [commit] = decide(POLICY, paused, [passed], NOW).actions
    assert isinstance(commit, Proceed)
    assert commit.until == ""


# The simulation.


@dataclass
class Wish:
    """What the fleet wants of a device: to run the new release as far as `until`, or the old."""

    new: bool = False
    until: str = ""
    attempt: int = 0


@dataclass
class Device:
    """An agent: what it has heard, and where its own machine stands; all of it is on its disk."""

    group: str
    heard: Wish = field(default_factory=Wish)
    phase: Phase = Phase.COMMITTED
    passed: bool = False
    failed: int = 0  # the last attempt that it gave up
    running_new: bool = False
    up: bool = True

    @property
    def live_new(self) -> bool:
        """Whether the new release takes frames."""
        return self.running_new or self.phase is Phase.TRIAL

    @property
    def waits(self) -> bool:
        if self.phase is Phase.PREPARED:
            return self.heard.until == "prepared"
        return self.phase is Phase.TRIAL and self.passed and self.heard.until != ""

    def hear(self, wish: Wish) -> None:
        if wish == self.heard:
            return
        attempt, self.heard = self.heard.attempt, wish
        if not wish.new:
            self.phase, self.passed, self.running_new = Phase.COMMITTED, False, False
        elif self.running_new:
            self.phase = Phase.COMMITTED
        elif wish.attempt > max(attempt, self.failed):
            self.phase, self.passed = Phase.RESOLVING, False

    def work(self) -> None:
        until = self.heard.until
        if self.phase is Phase.RESOLVING:
            self.phase = Phase.PREPARED if until == "prepared" else Phase.TRIAL
        elif self.phase is Phase.PREPARED and until != "prepared":
            self.phase = Phase.TRIAL
        elif self.phase is Phase.TRIAL and not until:
            self.phase, self.running_new = Phase.COMMITTED, True
        elif self.phase is Phase.TRIAL:
            self.passed = True

    def fail(self, phase: Phase) -> None:
        self.phase, self.passed, self.failed = phase, False, self.heard.attempt


MOVING = frozenset({Phase.RESOLVING, Phase.PREPARED, Phase.TRIAL})
policies = st.builds(
    Policy,
    waves=st.sampled_from([(Wave(count=1), Wave(percent=100)), (Wave(percent=100),)]),
    soak_s=st.just(0.0),
    on_failure=st.sampled_from(["rollback", "rollback-failed", "pause"]),
    retries=st.sampled_from([Retries(), Retries(rolled_back=1, timed_out=1, cool_down_s=50.0)]),
    limits=st.builds(
        Limits,
        in_flight=st.integers(1, 6),
        max_failures=st.sampled_from([0, 5, 5]),
        device_timeout_s=st.just(150.0),
    ),
    together=st.just(TOGETHER),
)


class GroupMachine(RuleBasedStateMachine):
    """Groups of devices that hear late, die, come back, fail and refuse; a fleet that is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.up_since = NOW, 0.0
        self.policy = POLICY
        self.stored = state()
        self.devices: dict[str, Device] = {}
        self.wanted: dict[str, Wish] = {}
        self.places: dict[str, DeviceObservation] = {}
        self.joined: set[str] = set()

    @initialize(policy=policies, sizes=st.lists(st.integers(2, 3), min_size=1, max_size=3))
    def begin(self, policy: Policy, sizes: list[int]) -> None:
        self.policy = policy
        for group, size in enumerate(sizes):
            for index in range(size):
                self.devices[f"{group}-{index}"] = Device(f"g{group}")

    @precondition(lambda self: len(self.devices) < 10)
    @rule(really=st.integers(0, 3))
    def join_late(self, really: int) -> None:
        if really:
            return
        name = f"0-late{len(self.devices)}"
        self.devices[name] = Device("g0")
        if any(p.group == "g0" for p in self.places.values()):
            self.joined.add(name)

    # The fleet.

    def observe(self) -> list[DeviceObservation]:
        return [
            self.places.get(name) or device(name, group=one.group)
            for name, one in self.devices.items()
        ]

    @precondition(lambda self: self.devices)
    @rule(crash=st.booleans())
    def tick(self, crash: bool) -> None:
        """A look of the controller; a crash loses all of it, for it is one transaction."""
        found = decide(self.policy, self.stored, self.observe(), self.now, self.up_since)
        assert found.sentence
        if not crash:
            self.carry_out(found)

    def carry_out(self, found: Decision) -> int:
        for action in found.actions:
            match action:
                case Assign(device=name, until=until, group=group):
                    tries = self.places[name].tries + 1 if name in self.places else 1
                    attempt = self.wanted.get(name, Wish()).attempt + 1
                    self.wanted[name] = Wish(True, until, attempt)
                    self.places[name] = device(
                        name,
                        group=group,
                        until=until,
                        until_at=self.now,
                        assigned_at=self.now,
                        assigned_variant="sha256:v",
                        tries=tries,
                    )
                case Proceed(devices=names, until=until):
                    self.check_all_are_ready(names[0], until)
                    self.proceed(names, until)
                case Retreat() | Restore():
                    self.restore(
                        *(action.devices if isinstance(action, Retreat) else (action.device,))
                    )
                case Advance(wave=wave):
                    assert not self.under_way()
                    self.keep(wave=wave, wave_held_since=None)
                case Hold(since=since):
                    self.keep(wave_held_since=since)
                case Complete():
                    assert not self.under_way()
                    self.keep(status=RolloutStatus.COMPLETED)
                case Halt(reason=reason) | Pause(reason=reason):
                    halts = isinstance(action, Halt)
                    status = RolloutStatus.HALTED if halts else RolloutStatus.PAUSED
                    self.keep(status=status, reason=reason)
        self.check_whole(found)
        return len(found.actions)

    def keep(self, **fields: object) -> None:
        self.stored = replace(self.stored, **fields)

    def proceed(self, names: Iterable[str], until: str) -> None:
        for name in names:
            self.places[name] = replace(self.places[name], until=until, until_at=self.now)
            self.wanted[name] = Wish(True, until, self.wanted[name].attempt)

    def restore(self, *names: str) -> None:
        for name in names:
            self.places[name] = replace(self.places[name], restored=True)
            self.wanted[name] = Wish(attempt=self.wanted[name].attempt)

    def under_way(self) -> list[str]:
        over = {Phase.ROLLED_BACK, Phase.REFUSED}
        places = self.places.items()
        return [n for n, p in places if p.until and not p.restored and p.phase not in over]

    def check_all_are_ready(self, name: str, until: str) -> None:
        """No member goes live before all are prepared, and none commits before all have passed."""
        for other, one in self.devices.items():
            place = self.places.get(other)
            if place is None or one.group != self.devices[name].group or not place.until:
                continue
            assert not place.restored
            ready = {Phase.PREPARED, Phase.COMMITTED} if until else {Phase.TRIAL, Phase.COMMITTED}
            assert place.phase in ready
            assert until or place.phase is Phase.COMMITTED or place.gates

    def check_whole(self, found: Decision) -> None:
        """Whole groups are given the release: a wave, a limit or a rate never parts one."""
        given = {a.device for a in found.actions if isinstance(a, Assign) and a.until}
        for group in {self.devices[name].group for name in given}:
            all_of = {n for n, d in self.devices.items() if d.group == group}
            assert {n for n in given if self.devices[n].group == group} == all_of - self.joined or (
                given >= all_of
            )

    # Devices.

    def hear(self, name: str) -> None:
        if self.devices[name].up and name in self.wanted:
            self.devices[name].hear(self.wanted[name])
            self.say(name)

    @precondition(lambda self: self.devices)
    @rule(
        rounds=st.integers(1, 3),
        unlucky=st.integers(0, 5),
        what=st.sampled_from(["nothing", "fails", "refuses", "dies", "is deaf"]),
    )
    def a_while_passes(self, rounds: int, unlucky: int, what: str) -> None:
        """All goes well, but for one device."""
        for number in range(rounds):
            self.tick(crash=False)
            for index, name in enumerate(self.devices):
                if index == unlucky and what == "is deaf":
                    continue
                self.hear(name)
                self.work(name, 1)
                if index == unlucky and number == rounds - 1:
                    self.devices[name].up &= what != "dies"
                    if what in {"fails", "refuses"}:
                        self.fail(name, refuses=what == "refuses")

    def work(self, name: str, steps: int) -> None:
        one = self.devices[name]
        for _ in range(steps if one.up else 0):
            if one.phase in MOVING and not one.waits:
                one.work()
                self.say(name)

    def fail(self, name: str, *, refuses: bool) -> None:
        one = self.devices[name]
        if one.phase in MOVING and one.up:
            refuses &= one.phase is Phase.RESOLVING
            one.fail(Phase.REFUSED if refuses else Phase.ROLLED_BACK)
            self.say(name)

    @precondition(lambda self: self.devices)
    @rule(data=st.data())
    def one_dies_or_comes_back(self, data: st.DataObject) -> None:
        one = self.devices[data.draw(st.sampled_from(sorted(self.devices)))]
        one.up = not one.up

    def say(self, name: str) -> None:
        """What it says of this very attempt reaches the fleet."""
        one, place = self.devices[name], self.places.get(name)
        if place is None or not one.heard.new or one.heard.attempt != self.wanted[name].attempt:
            return
        gates = (LIVE,) if one.passed or one.running_new else ()
        self.places[name] = replace(
            place,
            phase=one.phase,
            gates=gates,
            settled_at=self.now,
            last_seen=self.now,
            reason="no" if one.phase in {Phase.REFUSED, Phase.ROLLED_BACK} else "",
        )

    # Time and operators.

    @rule(seconds=st.sampled_from([1.0, 30.0, 80.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def the_fleet_is_killed_and_starts(self) -> None:
        self.up_since = self.now

    @precondition(lambda self: self.devices)
    @rule(to=st.sampled_from(["pause", "resume", "abort", "retry"]), really=st.integers(0, 3))
    def operate(self, to: str, really: int) -> None:
        if really:
            return  # seldom: most rollouts are to come to an end by themselves
        running, paused = RolloutStatus.RUNNING, RolloutStatus.PAUSED
        match to, self.stored.status:
            case "pause", RolloutStatus.RUNNING:
                self.stored = replace(self.stored, status=paused, reason="lunch")
            case "resume", RolloutStatus.PAUSED:
                self.stored = replace(self.stored, status=running)
            case "abort", RolloutStatus.RUNNING | RolloutStatus.PAUSED:
                self.stored = replace(self.stored, status=RolloutStatus.ABORTED, reason="enough")
            case "retry", RolloutStatus.HALTED | RolloutStatus.PAUSED | RolloutStatus.RUNNING:
                self.stored = replace(self.stored, status=running, wave_held_since=None)
                for name, p in self.places.items():
                    if p.restored or p.phase in {Phase.ROLLED_BACK, Phase.REFUSED}:
                        self.places[name] = replace(p, again=True)

    # What holds.

    @invariant()
    def nobody_commits_for_good_while_another_member_is_held_back(self) -> None:
        for group in {d.group for d in self.devices.values()}:
            mine = [n for n, p in self.places.items() if p.group == group and not p.restored]
            over = {Phase.ROLLED_BACK, Phase.REFUSED}
            alive = {
                self.places[n].until
                for n in mine
                if n not in self.joined and self.places[n].phase not in over
            }
            assert len(alive) <= 1, alive

    def teardown(self) -> None:
        """All come back and hear; the rollout rests: then no group is split."""
        for one in self.devices.values():
            one.up = True
        for _ in range(60):
            for name in self.devices:
                self.hear(name)
                self.work(name, 3)
            found = decide(self.policy, self.stored, self.observe(), self.now, self.up_since)
            before = self.stored
            if not self.carry_out(found) and self.stored == before:
                self.now += 60.0
        for group in {d.group for d in self.devices.values()}:
            live = {
                d.live_new
                for n, d in self.devices.items()
                if d.group == group and n in self.places and n not in self.joined
            }
            assert len(live) <= 1, (group, self.stored.status, self.places)
        if self.stored.status is RolloutStatus.RUNNING and self.devices:
            found = decide(self.policy, self.stored, self.observe(), self.now, self.up_since)
            assert found.waits_for is Waiting.DEVICES, found


GroupMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestGroups = GroupMachine.TestCase
