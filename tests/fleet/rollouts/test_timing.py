"""When devices may be given a release."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.messages import Phase
from cloud_sync.windows import UpdateWindow
from fleet.rollouts import Approval, Assign, Policy, RolloutStatus, Waiting, decide
from fleet.rollouts.failures import FailureKind, Retries, kind_of_rollback
from fleet.rollouts.policy import Limits, Wave
from fleet.rollouts.standing import failure
from fleet.rollouts.timing import DAYS, Rate, Window, opens_in, spell
from fleet.rollouts.together import Together
from tests.fleet.rollouts.observed import NOW, RELEASE, committed, device, rolled_back, state
from tests.fleet.rollouts.observed import given as told

ALL = (Wave(percent=100),)
NIGHT = Window(begins="22:00", ends="05:00")


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "offset", "wait"),
    [
        (NIGHT, "2026-11-20T23:00", 0, 0),
        (NIGHT, "2026-11-21T04:59", 0, 0),
        (NIGHT, "2026-11-21T05:00", 0, 17 * 3600),
        (NIGHT, "2026-11-20T21:30", 3600, 0),  # 22:30 on the device
        (NIGHT, "2026-11-20T21:30", -3600, 5400),
        (Window(days=("sat",), begins="22:00", ends="05:00"), "2026-11-22T03:00", 0, 0),
        (Window(days=("sat",), begins="22:00", ends="05:00"), "2026-11-21T03:00", 0, 19 * 3600),
        (Window(begins="00:00", ends="00:00"), "2026-11-21T03:00", 0, 0),
    ],
)
def test_a_window_opens_in_local_time_and_may_last_past_midnight(
    window: Window, now: str, offset: int, wait: float
) -> None:
    assert window.opens_in(at(now), offset) == wait


def test_a_window_with_a_time_zone_follows_its_summer_time() -> None:
    window = Window(begins="22:00", ends="23:00", timezone="Europe/Berlin")
    assert opens_in([window], at("2026-07-01T20:30"), None) == 0
    assert opens_in([window], at("2026-12-01T21:30"), 0) == 0
    assert opens_in([window], at("2026-12-01T20:30"), 0) == 1800


@given(
    st.builds(
        Window,
        days=st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(tuple),
        begins=st.sampled_from(["00:00", "08:30", "22:00"]),
        ends=st.sampled_from(["00:00", "05:00", "09:00"]),
    ),
    st.floats(1.6e9, 2e9),
    st.integers(-50400, 50400),
)
def test_a_window_is_open_when_it_says_that_it_opens(
    window: Window, now: float, offset: int
) -> None:
    wait = window.opens_in(now, offset)
    assert 0 <= wait <= 7 * 86400
    assert window.opens_in(now + wait + 1, offset) == 0


def test_a_device_is_given_the_release_in_its_own_window() -> None:
    now = at("2026-11-20T23:00")
    policy = Policy(waves=ALL, windows=(NIGHT,))
    here, there = device("a", utc_offset_s=0), device("b", utc_offset_s=8 * 3600)
    decision = decide(policy, state(), [here, there], now)
    assert decision.actions == (Assign(device="a", variant="sha256:v"),)
    waits = decide(policy, state(), [there], now)
    assert (waits.actions, waits.waits_for) == ((), Waiting.WINDOW)
    assert waits.until == now + 15 * 3600
    assert "1 device waits for the window (every day 22:00 to 05:00 device time)" in waits.sentence


def test_a_device_is_given_the_release_in_the_window_of_its_own_configuration() -> None:
    now = at("2026-11-20T12:00")
    policy = Policy(waves=ALL)
    free, bound = device("a"), device("b", windows=(NIGHT,), utc_offset_s=0)
    assert decide(policy, state(), [free, bound], now).actions == (
        Assign(device="a", variant="sha256:v"),
    )
    waits = decide(policy, state(), [bound], now)
    assert (waits.actions, waits.waits_for) == ((), Waiting.WINDOW)
    assert waits.until == at("2026-11-20T22:00")
    assert "1 device waits for the update windows of their configuration" in waits.sentence
    both = decide(Policy(waves=ALL, windows=(Window(begins="06:00", ends="21:00"),)), state(),
                  [bound], at("2026-11-20T23:00"))  # fmt: skip
    assert (both.actions, both.waits_for) == ((), Waiting.WINDOW)


def test_it_is_said_of_devices_that_no_time_is_in_all_their_windows() -> None:
    noon = at("2026-03-07T12:00")
    day = (UpdateWindow(begins="06:00", ends="21:00"),)
    night = (UpdateWindow(begins="22:00", ends="05:00"),)
    pair = [device(n, windows=w, group="7") for n, w in (("a", day), ("b", night))]
    together = Policy(waves=ALL, together=Together(label="line"))
    waits = decide(together, state(), [*pair, device("c", group="8", windows=night)], noon)
    assert (waits.actions, waits.waits_for) == ((), Waiting.WINDOW)
    assert "no time is in the windows of a, b at once: they wait for ever" in waits.sentence
    far = [pair[0], device("b", windows=night, group="7", utc_offset_s=8 * 3600)]
    patient = decide(together, state(), far, noon)
    assert patient.waits_for is Waiting.WINDOW
    assert patient.until == at("2026-03-07T14:00")
    assert "for ever" not in patient.sentence
    alone = Policy(waves=ALL, windows=(NIGHT,))
    waits = decide(alone, state(), [device("a", windows=day)], noon)
    assert "no time is in the windows of the policy, a at once" in waits.sentence


def test_only_the_time_within_its_window_makes_a_device_late() -> None:
    policy = Policy(waves=ALL, limits=Limits(device_timeout_s=3600.0))
    given_at = at("2026-11-21T04:30")  # half an hour before it closes
    late = told("a", Phase.RESOLVING, windows=(NIGHT,), utc_offset_s=0, assigned_at=given_at)
    assert failure(late, RELEASE, policy, at("2026-11-21T21:59")) is None
    assert failure(late, RELEASE, policy, at("2026-11-21T22:29")) is None
    found = failure(late, RELEASE, policy, at("2026-11-21T22:31"))
    assert found is not None
    assert found.kind is FailureKind.TIMED_OUT


def test_the_rate_bounds_how_many_are_given_it_in_a_minute_and_grows() -> None:
    rate = Rate(per_minute=2, increment_factor=2, increase_after_committed=2, max_per_minute=5)
    policy = Policy(waves=ALL, rate=rate)
    fresh = [device(f"d{n}") for n in range(20)]
    assert len(decide(policy, state(), fresh, NOW).actions) == 2
    lately = [told("a", assigned_at=NOW - 30), told("b", assigned_at=NOW - 10)]
    waits = decide(policy, state(), [*lately, *fresh], NOW)
    assert (waits.actions, waits.waits_for, waits.until) == ((), Waiting.RATE, NOW + 30)
    assert "2 a minute are given it, 20 more follow" in waits.sentence
    done = [committed(f"c{n}", assigned_at=NOW - 99) for n in range(4)]
    assert len(decide(policy, state(), [*done, *fresh], NOW).actions) == 5


def test_a_rollout_begins_at_its_start_time() -> None:
    policy = Policy(waves=ALL, start_at=dt.datetime.fromtimestamp(NOW + 7200, dt.UTC))
    early = decide(policy, state(), [device()], NOW)
    assert (early.actions, early.waits_for, early.until) == ((), Waiting.START_TIME, NOW + 7200)
    assert early.sentence == "digits:1.1.0 begins at 2023-11-15 00:13 UTC, in 2.0 h."
    assert decide(policy, state(), [device()], NOW + 7200).actions


def test_a_draft_waits_to_be_started() -> None:
    draft = decide(Policy(), state(status=RolloutStatus.DRAFT), [device()], NOW)
    assert (draft.actions, draft.waits_for) == ((), Waiting.START)
    assert "edgeml rollout start digits-1.1.0-abc" in draft.sentence


def test_a_wave_that_has_to_be_approved_gives_nothing_to_anyone_before() -> None:
    policy = Policy(waves=(Wave(count=1), Wave(percent=100)), approval="each-wave")
    first = decide(policy, state(), [device("a")], NOW)
    assert (first.actions, first.waits_for) == ((), Waiting.APPROVAL)
    assert first.sentence.startswith("Wave 1 of 2 (1 device) waits for approval")
    approved = state(approvals=(Approval(wave=0, by="anna", at=NOW),))
    assert decide(policy, approved, [device("a")], NOW).actions
    second = state(wave=1, approvals=approved.approvals)
    assert not decide(policy, second, [committed("a"), device("b")], NOW).actions
    once = Policy(waves=policy.waves, approval="before-start")
    assert decide(once, second, [committed("a"), device("b")], NOW).actions


def test_a_device_that_failed_is_tried_again_after_the_cool_down() -> None:
    policy = Policy(waves=ALL, retries=Retries(rolled_back=1, cool_down_s=600))
    failed = rolled_back("a", "unsure", settled_at=NOW)
    cooling = decide(policy, state(), [failed], NOW + 599)
    assert (cooling.actions, cooling.waits_for) == ((), Waiting.COOL_DOWN)
    assert cooling.until == NOW + 600
    assert "is tried again after 10 min (attempt 2)" in cooling.sentence
    due = decide(policy, state(), [failed], NOW + 600)
    assert due.actions == (Assign(device="a", variant="sha256:v"),)
    again = rolled_back("a", "unsure", settled_at=NOW, tries=2)
    assert "was halted" in decide(policy, state(), [again], NOW + 600).sentence


def test_retries_differ_by_the_kind_of_failure() -> None:
    policy = Policy(
        waves=ALL, retries=Retries(timed_out=3, cool_down_s=0), limits=Limits(device_timeout_s=60)
    )
    late = told("a", Phase.DOWNLOADING, assigned_at=NOW - 61)
    assert decide(policy, state(), [late], NOW).actions == (Assign(device="a", variant="sha256:v"),)
    assert "was halted" in decide(policy, state(), [rolled_back("a")], NOW).sentence


@pytest.mark.parametrize(
    "reason",
    [
        "the agent had to start 3 times during its trial",
        "the agent crashed 3 times in a row with it",
    ],
)
def test_a_crash_is_known_by_its_cause_and_of_an_older_agent_by_its_sentence(reason: str) -> None:
    assert kind_of_rollback("whatever it says", "crashed") is FailureKind.CRASHED
    assert kind_of_rollback(reason, "") is FailureKind.CRASHED
    assert kind_of_rollback("3 % of 60 were sure", "") is FailureKind.ROLLED_BACK
    assert kind_of_rollback(reason, "gate") is FailureKind.ROLLED_BACK
    assert kind_of_rollback(reason, "of a later version") is FailureKind.ROLLED_BACK


def test_an_operators_retry_needs_no_cool_down() -> None:
    failed = rolled_back("a", settled_at=NOW, again=True)
    assert decide(Policy(waves=ALL), state(), [failed], NOW).actions == (
        Assign(device="a", variant="sha256:v"),
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (600, "10 min"), (9000, "2.5 h"), (200000, "2.3 days")],
)
def test_times_are_spelt_as_people_say_them(seconds: float, text: str) -> None:
    assert spell(seconds) == text


def test_a_device_that_has_not_answered_fails_or_is_waited_for_as_the_policy_says() -> None:
    long_ago = NOW - 4000
    silent = told("a", assigned_at=long_ago)
    begun = told("a", Phase.DOWNLOADING, assigned_at=long_ago, settled_at=NOW - 10)
    stands = told("a", Phase.DOWNLOADING, assigned_at=long_ago, settled_at=NOW - 3700)
    for queued, failed in (("fail", (True, True, True)), ("wait", (False, False, True))):
        policy = Policy(waves=ALL, limits=Limits(queued=queued))
        found = [failure(one, RELEASE, policy, NOW) for one in (silent, begun, stands)]
        assert tuple(one is not None for one in found) == failed
    waits = Policy(waves=ALL, limits=Limits(queued="wait"))
    sentence = decide(waits, state(), [silent], NOW).sentence
    assert "a was given it and has not answered yet" in sentence
