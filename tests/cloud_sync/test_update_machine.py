"""The update machine under every order of events, with crashes between any two steps."""

from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloud_sync.messages import DesiredModel, Phase
from cloud_sync.update_machine import (
    IN_MOTION,
    MAX_BLOCKED,
    MAX_CRASHES,
    MAX_TRIAL_BOOTS,
    Again,
    Baseline,
    Broken,
    Done,
    Event,
    Fail,
    ModelState,
    Refuse,
    Restarted,
    Steady,
    Unwanted,
    Waiting,
    Wanted,
    blamed,
    is_blocked,
    is_held,
    kept,
    live,
    report,
    same_release,
    step,
    waits,
)

Until = Literal["", "prepared", "trial"]


def desired(release: int, attempt: int = 1, nonce: str = "", until: Until = "") -> DesiredModel:
    return DesiredModel(
        release=f"r{release}",
        variant=f"v{release}",
        release_version=f"{release}.0.0",
        attempt=attempt,
        nonce=nonce,
        until=until,
    )


def through(state: ModelState, *phases: Phase) -> ModelState:
    for phase in phases:
        assert state.candidate is not None
        state = step(state, Done(phase=phase, about=state.candidate))
    return state


WORK = (Phase.RESOLVING, Phase.DOWNLOADING, Phase.VERIFYING, Phase.TESTING)


def in_trial(release: int, before: ModelState | None = None) -> ModelState:
    return through(step(before or ModelState(), Wanted(desired=desired(release))), *WORK)


def committed(release: int, before: ModelState | None = None) -> ModelState:
    return through(in_trial(release, before), Phase.TRIAL)


def test_an_update_goes_from_phase_to_phase_and_what_ran_is_kept() -> None:
    state = committed(2, committed(1))
    assert state.phase is Phase.COMMITTED
    assert (state.running, state.previous) == (desired(2), desired(1))
    assert state.candidate is None


def test_only_in_its_trial_does_a_candidate_take_frames() -> None:
    state = step(committed(1), Wanted(desired=desired(2)))
    for phase in WORK:
        assert live(state) == desired(1)
        state = through(state, phase)
    assert live(state) == desired(2)


def prepared(release: int) -> ModelState:
    wish = desired(release, until="prepared")
    return through(step(committed(1), Wanted(desired=wish)), *WORK)


def test_a_device_of_a_group_stops_when_it_is_prepared_and_goes_on_when_it_is_told() -> None:
    state = prepared(2)
    assert (state.phase, live(state), waits(state)) == (Phase.PREPARED, desired(1), True)
    assert through(state, Phase.PREPARED) == state
    assert step(state, Restarted(crashed=True)).phase is Phase.PREPARED
    state = step(state, Wanted(desired=desired(2, until="trial")))
    assert not waits(state)
    assert live(through(state, Phase.PREPARED)) == desired(2, until="trial")


def test_a_trial_that_has_passed_is_not_committed_before_the_group_is() -> None:
    own = Baseline(release="2", inferred=7)
    told = step(prepared(2), Wanted(desired=desired(2, until="trial")))
    state = through(told, Phase.PREPARED)
    assert not waits(state)
    state = step(state, Done(phase=Phase.TRIAL, about=desired(2), baseline=own))
    assert (state.phase, state.passed, waits(state)) == (Phase.TRIAL, own, True)
    assert state.running == desired(1)
    for _ in range(10):  # it may wait for days, and be switched off and on
        state = step(state, Restarted())
    state = step(state, Wanted(desired=desired(2)))
    state = step(state, Done(phase=Phase.TRIAL, about=desired(2), baseline=own))
    assert (state.phase, state.running, state.proven) == (Phase.COMMITTED, desired(2), own)


def test_a_group_that_goes_back_does_so_at_once_from_wherever_a_device_is() -> None:
    switched = through(
        step(prepared(2), Wanted(desired=desired(2, until="trial"))), Phase.PREPARED, Phase.TRIAL
    )
    for state in (prepared(2), switched):
        back = step(state, Wanted(desired=desired(1)))
        assert (back.phase, live(back), back.candidate) == (Phase.COMMITTED, desired(1), None)
        assert back.passed is None
        assert not is_blocked(back, desired(2))


def test_a_release_that_does_badly_after_its_trial_has_passed_goes_back() -> None:
    told = step(prepared(2), Wanted(desired=desired(2, until="trial")))
    state = through(told, Phase.PREPARED, Phase.TRIAL)
    failed = step(state, Fail(about=desired(2), reason="unsure"))
    assert (failed.phase, live(failed)) == (Phase.ROLLED_BACK, desired(1))
    for _ in range(MAX_TRIAL_BOOTS):
        state = step(state, Restarted(crashed=True))
    assert (state.phase, live(state)) == (Phase.ROLLED_BACK, desired(1))


def test_a_failed_trial_goes_back_and_blocks_that_attempt_alone() -> None:
    state = step(in_trial(2, committed(1)), Fail(about=desired(2), reason="unsure"))
    assert (state.phase, live(state), state.reason) == (Phase.ROLLED_BACK, desired(1), "unsure")
    assert step(state, Wanted(desired=desired(2))) == state
    assert step(state, Wanted(desired=desired(2, attempt=2))).phase is Phase.RESOLVING


def test_a_blocked_release_that_is_wanted_again_later_is_reported_as_rolled_back() -> None:
    failed = step(in_trial(2, committed(1)), Fail(about=desired(2), reason="unsure"))
    state = step(committed(3, failed), Wanted(desired=desired(2)))
    assert (state.phase, live(state)) == (Phase.ROLLED_BACK, desired(3))
    assert report(state).release == "r2"
    assert "before" in report(state).reason
    assert (report(failed).cause, report(state).cause) == ("gate", "")


def test_a_refused_release_is_not_blocked_and_a_higher_attempt_is_taken() -> None:
    state = step(
        step(committed(1), Wanted(desired=desired(2))), Refuse(about=desired(2), reason="no room")
    )
    assert (state.phase, state.blocked) == (Phase.REFUSED, ())
    assert step(state, Wanted(desired=desired(2))) == state
    assert step(state, Wanted(desired=desired(2, attempt=2))).phase is Phase.RESOLVING


def test_what_was_refused_for_want_of_something_is_taken_up_again() -> None:
    wanted = step(committed(1), Wanted(desired=desired(2)))
    lacking = step(wanted, Refuse(about=desired(2), reason="no room", lacking=True))
    assert (lacking.phase, report(lacking).reason) == (Phase.REFUSED, "no room")
    assert step(lacking, Again(about=desired(2))) == wanted
    assert step(lacking, Again(about=desired(3))) == lacking


def test_what_was_refused_for_another_reason_stays_refused() -> None:
    wanted = step(committed(1), Wanted(desired=desired(2)))
    refused = step(wanted, Refuse(about=desired(2), reason="no runtime"))
    assert step(refused, Again(about=desired(2))) == refused
    moving = step(refused, Wanted(desired=desired(2, attempt=2)))
    assert step(moving, Again(about=desired(2, attempt=2))) == moving


@pytest.mark.parametrize(
    "event",
    [
        Done(phase=Phase.RESOLVING, about=desired(1)),
        Refuse(about=desired(1), reason="late"),
        Fail(about=desired(1), reason="late"),
        Fail(about=desired(2, attempt=1), reason="of the attempt before"),
    ],
)
def test_what_comes_of_work_on_another_candidate_changes_nothing(event: Event) -> None:
    state = step(ModelState(), Wanted(desired=desired(1)))
    state = step(state, Wanted(desired=desired(2, attempt=2)))
    assert step(state, event) == state


def test_wanting_what_runs_ends_an_update_to_something_else() -> None:
    state = step(in_trial(2, committed(1)), Wanted(desired=desired(1)))
    assert (state.phase, live(state), state.candidate) == (Phase.COMMITTED, desired(1), None)


def test_a_first_release_that_is_taken_back_in_its_trial_is_never_committed() -> None:
    state = step(in_trial(1), Unwanted())
    assert (state.phase, live(state), kept(state)) == (Phase.IDLE, None, ())
    assert step(state, Done(phase=Phase.TRIAL, about=desired(1))) == state


def test_a_model_that_is_wanted_no_more_stops_and_its_marks_stay() -> None:
    failed = step(in_trial(2, committed(1)), Fail(about=desired(2), reason="unsure"))
    state = step(failed, Unwanted())
    assert (live(state), kept(state)) == (None, ())
    assert is_blocked(state, desired(2))
    assert step(state, Wanted(desired=desired(1))).phase is Phase.RESOLVING
    assert report(state).running_release == ""


def test_a_repeated_wish_does_not_begin_again_but_its_nonce_is_taken() -> None:
    state = in_trial(2, committed(1))
    again = step(state, Wanted(desired=desired(2, nonce="new")))
    assert again.phase is Phase.TRIAL
    assert again.candidate == desired(2, nonce="new")


def test_a_committed_release_with_which_the_agent_keeps_crashing_gives_way() -> None:
    state = committed(2, committed(1))
    for _ in range(MAX_CRASHES - 1):
        state = step(state, Restarted(crashed=True))
        assert live(state) == desired(2)
    state = step(state, Restarted(crashed=True))
    assert (state.phase, live(state)) == (Phase.ROLLED_BACK, desired(1))
    assert "crashed 3 times" in state.reason
    assert report(state).cause == "crashed"
    assert report(step(state, Wanted(desired=desired(3)))).cause == ""
    assert step(state, Wanted(desired=desired(2))) == state
    assert step(state, Wanted(desired=desired(2, attempt=2))).phase is Phase.RESOLVING


def test_crashes_count_only_in_a_row_and_restarts_that_were_asked_for_not_at_all() -> None:
    state = committed(2, committed(1))
    for _ in range(10):
        state = step(state, Restarted())
        state = step(state, Restarted(crashed=True))
        state = step(state, Restarted(crashed=True))
        state = step(state, Steady())
    assert live(state) == desired(2)


def test_with_nothing_to_go_back_to_it_goes_on_crashing() -> None:
    state = committed(1)
    for _ in range(10):
        state = step(state, Restarted(crashed=True))
    assert live(state) == desired(1)


def test_a_crash_loop_in_the_middle_of_an_update_goes_back_and_lets_the_update_go_on() -> None:
    state = step(committed(2, committed(1)), Wanted(desired=desired(3)))
    for _ in range(MAX_CRASHES):
        state = step(state, Restarted(crashed=True))
    assert (state.phase, live(state), state.candidate) == (Phase.RESOLVING, desired(1), desired(3))


def test_blamed_for_a_crash_are_the_releases_that_have_not_proven_themselves() -> None:
    fresh, proven, idle = committed(2), step(committed(1), Steady()), ModelState()
    assert blamed({"a": fresh, "b": proven, "c": idle}) == {"a"}
    assert blamed({"b": proven, "c": idle}) == {"b"}
    assert blamed({"b": proven, "d": in_trial(3, proven)}) == {"d"}


def test_a_release_during_whose_trial_the_agent_keeps_starting_is_rolled_back() -> None:
    state = in_trial(2, committed(1))
    for _ in range(MAX_TRIAL_BOOTS - 1):
        state = step(state, Restarted())
        assert state.phase is Phase.TRIAL
    state = step(state, Restarted())
    assert (state.phase, live(state)) == (Phase.ROLLED_BACK, desired(1))
    assert is_blocked(state, desired(2))
    assert report(state).cause == "crashed"


def test_a_broken_release_gives_way_to_the_one_before() -> None:
    state = step(committed(2, committed(1)), Broken(about=desired(2), reason="damaged"))
    assert (state.phase, live(state), state.candidate) == (
        Phase.ROLLED_BACK,
        desired(1),
        desired(2),
    )
    assert report(state).cause == "damaged"
    assert step(state, Wanted(desired=desired(2, attempt=2))).phase is Phase.RESOLVING


def test_a_broken_release_does_not_end_the_update_to_a_better_one() -> None:
    state = step(committed(2, committed(1)), Wanted(desired=desired(3)))
    state = step(state, Broken(about=desired(2), reason="damaged"))
    assert (state.phase, live(state), state.candidate) == (
        Phase.RESOLVING,
        desired(1),
        desired(3),
    )


def test_the_baseline_of_a_trial_is_what_ran_and_becomes_its_own_when_it_commits() -> None:
    before, own = Baseline(release="1", inferred=9), Baseline(release="2", inferred=7)
    state = through(step(committed(1), Wanted(desired=desired(2))), *WORK[:3])
    state = step(state, Done(phase=Phase.TESTING, about=desired(2), baseline=before))
    assert state.baseline == before
    state = step(state, Done(phase=Phase.TRIAL, about=desired(2), baseline=own))
    assert state.proven == own


def test_marks_are_bounded_and_one_release_has_one() -> None:
    state = committed(0)
    for release in (*range(1, MAX_BLOCKED + 5), MAX_BLOCKED + 4):
        again = is_blocked(state, desired(release))
        state = in_trial_of(desired(release, attempt=2 if again else 1), state)
        assert state.candidate is not None
        state = step(state, Fail(about=state.candidate, reason="bad"))
    assert len(state.blocked) == MAX_BLOCKED
    assert len({mark.release for mark in state.blocked}) == MAX_BLOCKED


def in_trial_of(wish: DesiredModel, before: ModelState) -> ModelState:
    return through(step(before, Wanted(desired=wish)), *WORK)


wishes = st.builds(
    desired,
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(["", "n"]),
    st.sampled_from(["", "", "prepared", "trial"]),
)
events = st.one_of(
    st.builds(Wanted, desired=wishes),
    st.just(Unwanted()),
    st.builds(Done, phase=st.sampled_from(Phase), about=wishes),
    st.builds(Refuse, about=wishes, reason=st.just("no"), lacking=st.booleans()),
    st.builds(Again, about=wishes),
    st.builds(Waiting, about=wishes, reason=st.just("later")),
    st.builds(Fail, about=wishes, reason=st.just("bad")),
    st.builds(Broken, about=wishes, reason=st.just("gone")),
    st.just(Restarted()),
)


@given(st.lists(events, max_size=40))
def test_any_event_is_taken_in_any_state_and_the_journal_holds_every_state(
    history: list[Event],
) -> None:
    state = ModelState()
    for event in history:
        after = step(state, event)
        assert msgspec.json.decode(msgspec.json.encode(after), type=ModelState) == after
        if after.phase in IN_MOTION:
            assert after.candidate is not None
            assert not is_blocked(after, after.candidate)
            assert not same_release(after.candidate, after.running)
        if state.candidate and after.phase in {Phase.TRIAL, Phase.COMMITTED}:
            # What the fleet holds back does not go live, and is not committed.
            live_now = state.phase is not Phase.TRIAL and after.phase is Phase.TRIAL
            assert not (live_now and after.candidate and after.candidate.until == "prepared")
            committed_now = same_release(after.running, state.candidate)
            assert not (committed_now and isinstance(event, Done) and state.candidate.until)
        if after.running != state.running and not isinstance(event, Broken):
            assert isinstance(
                event, Wanted | Unwanted | Done
            )  # nothing else changes what is committed
        report(after)
        state = after


class DeviceMachine(RuleBasedStateMachine):
    """A device around the machine: a journal on disk, blobs, one release in memory.

    Every rule may crash before or after the journal is written; then all that is left is the
    journal and the blobs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.journal = ModelState()
        self.blobs: set[str] = set()
        self.loaded: DesiredModel | None = None
        self.proven: set[str] = set()
        self.failed: set[tuple[str, int]] = set()
        self.harmed = False
        self.unwanted = True

    def write(self, event: Event, crash: str) -> None:
        if crash == "before":
            self.restart()
            return
        before = self.journal
        self.journal = step(before, event)
        if self.journal.phase is Phase.COMMITTED and before.phase is Phase.TRIAL:
            assert self.journal.running is not None
            self.proven.add(self.journal.running.release)
            self.unwanted = False
        if isinstance(event, Unwanted):
            self.unwanted = True
        gave_up = isinstance(event, Fail | Restarted) and before.phase in IN_MOTION
        if gave_up and self.journal.phase is Phase.ROLLED_BACK:
            assert before.candidate is not None
            self.failed.add((before.candidate.release, before.candidate.attempt))
        if crash == "after":
            self.restart()
        else:
            self.settle()

    def restart(self) -> None:
        self.loaded = None
        self.write(Restarted(), "never")

    def settle(self) -> None:
        wanted = live(self.journal)
        if wanted is not None and wanted.release not in self.blobs:
            event = Fail if self.journal.phase is Phase.TRIAL else Broken
            self.write(event(about=wanted, reason="its files are damaged"), "never")
            return
        self.loaded = wanted

    crashes = st.sampled_from(["never", "never", "before", "after"])

    @rule(wish=wishes, crash=crashes)
    def want(self, wish: DesiredModel, crash: str) -> None:
        self.write(Wanted(desired=wish), crash)

    @rule(crash=crashes)
    def take_back(self, crash: str) -> None:
        self.write(Unwanted(), crash)

    @precondition(lambda self: self.journal.phase in IN_MOTION)
    @rule(outcome=st.sampled_from(["done", "done", "done", "refuse", "fail"]), crash=crashes)
    def work(self, outcome: str, crash: str) -> None:
        about = self.journal.candidate
        assert about is not None
        phase = self.journal.phase
        if outcome == "done":
            if phase is Phase.DOWNLOADING:
                self.blobs.add(about.release)
            event: Event = Done(phase=phase, about=about)
        elif outcome == "refuse":
            event = Refuse(about=about, reason="no", lacking=True)
        else:
            event = Fail(about=about, reason="bad")
        self.write(event, crash)

    @precondition(lambda self: waits(self.journal))
    @rule(until=st.sampled_from(["", "trial"]), crash=crashes)
    def let_go_on(self, until: Until, crash: str) -> None:
        about = self.journal.candidate
        assert about is not None
        assert live(self.journal) == (about if self.journal.passed else self.journal.running)
        self.write(Wanted(desired=msgspec.structs.replace(about, until=until)), crash)

    @precondition(lambda self: self.journal.phase is Phase.REFUSED)
    @rule(crash=crashes)
    def have_room(self, crash: str) -> None:
        about = self.journal.candidate
        assert about is not None
        self.write(Again(about=about), crash)

    @rule()
    def collect_garbage(self) -> None:
        self.blobs &= {wanted.release for wanted in kept(self.journal)}

    @rule()
    def power_loss(self) -> None:
        self.restart()

    @precondition(lambda self: self.journal.running is not None)
    @rule()
    def the_disk_damages_what_runs(self) -> None:
        running = self.journal.running
        assert running is not None
        self.harmed = True
        self.blobs.discard(running.release)
        self.restart()

    @invariant()
    def what_is_in_memory_is_what_the_journal_says(self) -> None:
        wanted = live(self.journal)
        assert (self.loaded is None) == (wanted is None)
        assert self.loaded is None or same_release(self.loaded, wanted)

    @invariant()
    def once_something_was_committed_something_committed_can_run(self) -> None:
        if self.unwanted:
            assert self.journal.running is None
        elif not self.harmed:
            assert self.journal.running is not None
        if self.journal.running is not None:
            assert self.journal.running.release in self.proven
            assert self.harmed or self.journal.running.release in self.blobs

    @invariant()
    def what_failed_is_never_tried_again_at_the_same_attempt(self) -> None:
        state = self.journal
        if state.phase in IN_MOTION:
            assert state.candidate is not None
            assert (state.candidate.release, state.candidate.attempt) not in self.failed


DeviceMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestDevice = DeviceMachine.TestCase


def test_a_window_holds_up_what_has_begun_and_neither_a_trial_nor_the_way_back() -> None:
    state = step(committed(1), Wanted(desired=desired(2)))
    for phase in WORK:
        assert is_held(state)
        state = through(state, phase)
    assert state.phase is Phase.TRIAL
    assert not is_held(state)
    assert not is_held(step(committed(2, committed(1)), Wanted(desired=desired(1))))
    prepared = through(step(committed(1), Wanted(desired=desired(2, until="prepared"))), *WORK)
    assert prepared.phase is Phase.PREPARED
    assert not is_held(prepared)
