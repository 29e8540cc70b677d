import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import UserError
from fleet.rollouts.policy import (
    DEFAULT_WAVES,
    MAX_POLICY_BYTES,
    Policy,
    Wave,
    parse_policy,
    schema,
)


def test_an_empty_file_is_the_default_policy() -> None:
    policy = parse_policy(b"")
    assert policy == Policy()
    assert [str(wave) for wave in policy.waves] == ["1 device", "5 %", "25 %", "100 %"]


def test_a_whole_policy_is_read() -> None:
    policy = parse_policy(
        'selector = "site=north"\nsoak_s = 6\non_failure = "pause"\n'
        "[[waves]]\ncount = 2\n[[waves]]\npercent = 100\n"
        "[gates]\nmin_evidence = 2\n[trial]\nmin_inferred = 40\n[limits]\nmax_failures = 1\n"
    )
    assert policy.waves == (Wave(count=2), Wave(percent=100))
    assert (policy.trial.min_inferred, policy.limits.max_failures) == (40, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("soak = 3", "Line 1: soak is not known. Known here: selector, waves, soak_s"),
        ("\n[gates]\n# x\nfoo = 1", "Line 4: gates.foo is not known. Known here: min_evidence"),
        ("[trial]\nmin_seen = 1", "Line 2: trial.min_seen is not known."),
        (
            "[[waves]]\ncount = 1\n[[waves]]\ncount = 0",
            "Line 4: waves[2].count expected `int` >= 1",
        ),
        ("[[waves]]\ncount = 1\n\n[[waves]]\n", "Line 4: waves[2] needs a count or a percent"),
        ("[[waves]]\ncount = 1\npercent = 5", "Line 1: waves[1] needs a count or a percent"),
        ('[limits]\nmax_failures = "x"', "Line 2: limits.max_failures expected `int`, got `str`"),
        ("[limits]\ndevice_timeout_s = inf", "Line 2: limits.device_timeout_s must be a finite"),
        ("soak_s = nan", "Line 1: soak_s"),
        ("soak_s = inf", "Line 1: soak_s must be a finite number"),
        ("[trial]\nsoak_s = -1", "Line 2: trial.soak_s must not be negative, but is -1"),
        ('\nselector = "a in b"', "Line 2: selector The selector's part 'a in b' cannot be read."),
        ("waves = []", "Line 1: waves expected `array` of length >= 1"),
        ('on_failure = "x"', "Line 1: on_failure invalid enum value 'x'"),
        ("waves = 3", "Line 1: waves expected `array`, got `int`"),
        (
            '[[windows]]\nbegins = "22:00"\nends = "25:00"',
            'Line 3: windows[1].ends must be a time of day such as "22:00"',
        ),
        (
            '[[windows]]\nbegins = "22:00"',
            "Line 1: windows[1] object missing required field `ends`",
        ),
        (
            '[[windows]]\nbegins = "22:00"\nends = "05:00"\ntimezone = "Mars"',
            "Line 4: windows[1].timezone 'Mars' is neither \"device\" nor a time zone",
        ),
        ("start_at = 2026-11-22T08:00:00", "Line 1: start_at expected `datetime` with a timezone"),
        ("approval = true", "Line 1: approval invalid enum value True"),
        ("[rate]\nper_minute = 0", "Line 2: rate.per_minute expected `int` >= 1"),
        (
            "[rate]\nper_minute = 5\nincrement_factor = 2",
            "Line 1: rate increases, and does not say",
        ),
        ("[retries]\ntimed_out = 11", "Line 2: retries.timed_out expected `int` <= 10"),
        ("[[thresholds]]\npercent = 100", "Line 2: thresholds[1].percent expected `float` < 100"),
        (
            "[gates]\n[[gates.metrics]]\nname = 'x'\nmaximum = 1",
            "Line 4: gates.metrics[1].maximum is not known. Known here: name, max, min",
        ),
        ("[[gates.metrics]]\nname = 'x'", "Line 1: gates.metrics[1] needs a max, a min or both"),
        (
            "[[gates.metrics]]\nname = 'x'\nmax = nan",
            "Line 3: gates.metrics[1].max must be a finite",
        ),
        ("soak_s = \n", "It is not valid TOML: Invalid value (at line 1, column 10)"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_key(text: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        parse_policy(text)
    assert says in str(error.value)


def test_what_is_not_said_has_the_default_of_a_careful_policy() -> None:
    policy = parse_policy("[limits]\nin_flight = 5")
    assert (policy.failures_allowed, policy.approval, policy.windows) == (0, False, ())
    lenient = parse_policy("[[thresholds]]\npercent = 5\nminimum = 20")
    assert lenient.failures_allowed is None
    assert (
        parse_policy("[limits]\nmax_failures = 2\n[[thresholds]]\npercent = 5").failures_allowed
        == 2
    )


def test_a_policy_comes_back_from_the_database_as_it_went_in() -> None:
    policy = parse_policy(
        'start_at = 2026-11-22T08:00:00+01:00\napproval = "each-wave"\n'
        '[[windows]]\nbegins = "22:00"\nends = "05:00"\n[rate]\nper_minute = 5\n'
        "[[gates.metrics]]\nname = 'drift'\nmax = 0.2"
    )
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


def test_the_schema_knows_every_key_and_refuses_others() -> None:
    found = schema()["$defs"]["Policy"]
    assert set(found["properties"]) == set(Policy.__struct_fields__)
    assert found["additionalProperties"] is False


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(UserError, match="larger than"):
        parse_policy(b"#" * (MAX_POLICY_BYTES + 1))


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_whatever_is_sent_is_a_policy_or_one_sentence(data: bytes | str) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse_policy(data), Policy)


@given(st.integers(1, 10_000), st.sampled_from(DEFAULT_WAVES))
def test_a_wave_reaches_at_least_one_and_at_most_all(selected: int, wave: Wave) -> None:
    assert 1 <= wave.size(selected) <= selected


@pytest.mark.parametrize(("selected", "size"), [(1, 1), (10, 1), (100, 5), (101, 6)])
def test_a_percentage_is_rounded_up(selected: int, size: int) -> None:
    assert Wave(percent=5).size(selected) == size
