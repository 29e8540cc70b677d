import pytest

from cloud_sync.evidence import Verdict
from cloud_sync.messages import Phase
from fleet.rollouts import DeviceObservation, Policy, decide
from fleet.rollouts.explain import figure, quote
from fleet.rollouts.policy import Gates, Wave
from tests.fleet.rollouts.observed import (
    NOW,
    committed,
    device,
    gate,
    given,
    latency,
    rolled_back,
    state,
)

POLICY = Policy(waves=(Wave(count=2), Wave(percent=100)), soak_s=60.0)


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        (
            [device("a"), device("b")],
            (
                "In wave 1 of 2 (2 devices), 0 of 2 devices committed with evidence, "
                "2 more are given it now."
            ),
        ),
        (
            [given("a"), given("b")],
            (
                "In wave 1 of 2 (2 devices), 0 of 2 devices committed with evidence; "
                "a was given it and has not answered yet."
            ),
        ),
        (
            [committed("a"), given("b", Phase.TRIAL, reason="12 s of 60 s.")],
            (
                "In wave 1 of 2 (2 devices), 1 of 2 devices committed with evidence; "
                "b is in its trial (12 s of 60 s)."
            ),
        ),
    ],
)
def test_a_wait_says_for_whom(devices: list[DeviceObservation], sentence: str) -> None:
    assert decide(POLICY, state(), devices, NOW).sentence == sentence


def test_an_advance_quotes_the_gates_that_were_held() -> None:
    shown = (gate(value=0.0, bound=1e-4), latency(3.0, 2.0))
    devices = [committed("a", *shown), committed("b", *shown), device("c")]
    sentence = decide(POLICY, state(wave_held_since=NOW - 60), devices, NOW).sentence
    assert sentence == (
        "Wave 1 of 2 (2 devices) held 5 gates for 60 s on 2 devices "
        "(golden.outputs 0 against 0.0001; latency_p95_ratio 3 ms against 11 ms); the next begins."
    )


def completed(policy: Policy, *devices: DeviceObservation) -> str:
    held = state(wave=len(policy.waves) - 1, wave_held_since=NOW - policy.soak_s)
    return decide(policy, held, devices, NOW).sentence


@pytest.mark.parametrize(
    ("devices", "end"),
    [
        ([committed("a")], "for 60 s on 1 device."),
        ([committed("a"), device("b")], "; the policy's waves end at 1 of 2 devices."),
        (
            [committed("a"), device("b", variant="", unfit="needs arm64.")],
            "; 1 device selected cannot take it, b: needs arm64.",
        ),
        (
            [committed("a"), device("b"), given("c", Phase.REFUSED, reason="the disk is full.")],
            (
                "; the policy's waves end at 1 of 2 devices; 1 device selected cannot take it, "
                "c refused it: the disk is full."
            ),
        ),
        (
            [committed("a"), device("b", busy=True)],
            "; another rollout of this model has 1 device (b).",
        ),
    ],
)
def test_an_end_says_of_every_device_left_out_why(
    devices: list[DeviceObservation], end: str
) -> None:
    policy = Policy(waves=(Wave(count=1),), soak_s=60.0)
    sentence = completed(policy, *devices)
    assert sentence.startswith("digits:1.1.0 is on 1 device and held ")
    assert sentence.endswith(end)


def test_a_doubt_says_once_what_would_decide_it() -> None:
    policy = Policy(waves=(Wave(count=1),), gates=Gates(max_temperature_c=80.0))
    sentence = decide(policy, state(), [committed("a")], NOW).sentence
    assert sentence.endswith("temperature_c yet; 1 device with 1 sample would decide it.")


def test_a_halt_says_what_was_done_so_that_it_stays_true() -> None:
    sentence = decide(POLICY, state(), [rolled_back("a"), given("b")], NOW).sentence
    assert sentence.endswith("was told to go back to what it ran before.")


def test_a_pause_says_that_devices_stay_and_what_can_be_done() -> None:
    policy = Policy(waves=(Wave(count=1),), on_failure="pause")
    sentence = decide(policy, state(), [rolled_back("a")], NOW).sentence
    assert sentence == (
        "digits:1.1.0 was paused in wave 1 of 1 (1 device): 1 of 1 device failed, none may "
        "(a rolled back: unsure). The devices stay as they are; retry, override or abort it: "
        "edgeml rollout explain digits-1.1.0-abc"
    )


def test_a_doubt_says_what_would_decide_it() -> None:
    doubt = gate(Verdict.UNDECIDED, name="live.confident_share", n=12, n_needed=80)
    sentence = decide(POLICY, state(), [committed("a", doubt), committed("b")], NOW).sentence
    assert "a gate is undecided: a, the closest of 1" not in sentence
    assert "80 samples would decide it, there are 12." in sentence


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.12345, "0.123"), (12.0, "12"), (12345.6, "12,346")]
)
def test_figures_have_the_digits_that_say_something(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_gate_without_numbers_is_not_quoted() -> None:
    assert not quote(gate())
