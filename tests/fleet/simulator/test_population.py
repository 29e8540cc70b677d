import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sync.evidence import Verdict, combined
from cloud_sync.messages import DesiredModel, TrialPolicy
from cloud_sync.release import Variant
from cloud_sync.update_machine import Baseline
from edgeml.errors import UserError
from fleet.services import figures
from fleet.simulator import behaviour
from fleet.simulator.behaviour import Asked
from fleet.simulator.hardware_classes import read_classes
from fleet.simulator.population import FAULTS, Fault, Member, parse_faults, populate
from fleet.simulator.running import require_files
from fleet.sums import Sums
from hardware.capabilities import Capabilities
from hardware.profiles import profiles
from hardware.requirements import Requirements, unmet

KINDS = read_classes()


@given(
    number=st.integers(1, 300),
    shares=st.dictionaries(st.sampled_from(Fault), st.floats(0, 0.1), max_size=9),
    seed=st.integers(),
)
@settings(max_examples=100, deadline=None)
def test_every_fault_and_class_has_its_share_and_the_seed_decides_who(
    number: int, shares: dict[Fault, float], seed: int
) -> None:
    members = populate(number, KINDS, shares, seed=seed)
    assert members == populate(number, KINDS, shares, seed=seed)
    assert len({member.device for member in members}) == number
    found = Counter(member.fault for member in members)
    for fault, share in shares.items():
        assert abs(found[fault] - share * number) <= 1
    total = sum(kind.share for kind in KINDS)
    kinds = Counter(member.kind.name for member in members)
    for kind in KINDS:
        assert abs(kinds[kind.name] - number * kind.share / total) <= 1


def test_every_fault_is_explained() -> None:
    assert set(FAULTS) == set(Fault)


@pytest.mark.parametrize("pair", ["slow", "slow=", "slow=x", "fast=0.1", "slow=2", "slow=-1"])
def test_a_share_that_is_none_is_refused(pair: str) -> None:
    with pytest.raises(UserError, match="is no fault with its share") as error:
        parse_faults([pair])
    assert "Known are: fails-test" in error.value.why


def test_shares_of_more_than_all_are_refused() -> None:
    with pytest.raises(UserError, match="add up to more"):
        parse_faults(["slow=60%", "lies=0.6"])


@pytest.mark.parametrize("number", [0, -1, 100_001])
def test_no_devices_or_too_many_are_refused(number: int) -> None:
    with pytest.raises(UserError, match="cannot be simulated"):
        populate(number, KINDS, {}, seed=1)


def test_more_files_than_a_process_may_have_are_refused_with_what_to_set() -> None:
    with pytest.raises(UserError) as error:
        require_files(10**9)
    assert "ulimit -n 1000000200" in error.value.fix


def test_each_class_is_of_its_target() -> None:
    for kind in KINDS:
        assert unmet(profiles()[kind.target].requirements(), kind.capabilities()) == ()
        assert isinstance(kind.capabilities(), Capabilities)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[class]]\nname = 'a'\ntarget = 'cpu-arm64'\n", "a is no cpu-arm64: it needs the CPU"),
        ("[[class]]\nname = 'a'\n", "`target`"),
        ("[[class]]\nname = 'a'\ntarget = 'cpu-arm64'\ncolour = 1\n", "unknown field `colour`"),
        ("class = 1", "Expected `array`"),
        ("class = ", "Invalid value"),
        ("", "`class`"),
    ],
)
def test_classes_that_cannot_be_are_refused_with_the_reason(
    tmp_path: Path, text: str, why: str
) -> None:
    file = tmp_path / "classes.toml"
    file.write_text(text)
    with pytest.raises(UserError, match="The hardware classes cannot be used") as error:
        read_classes(file)
    assert why in str(error.value)


def test_a_file_of_classes_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_classes(tmp_path / "none.toml")


def asked() -> Asked:
    digest = "sha256:" + "a" * 64
    variant = Variant(
        digest=digest, size=1, target="cpu-x86-64", rank=0, requires=Requirements(),
        format="onnx", precision="int8", quantization="", verification="artifact-executed",
        files=(),
    )  # fmt: skip
    trial = TrialPolicy(soak_s=0.0, min_inferred=50)
    desired = DesiredModel(release=digest, variant=digest, release_version="1.0.0", trial=trial)
    return Asked(model="digits", desired=desired, variant=variant, epoch=1, counter=1)


def member(fault: Fault | None) -> Member:
    [found] = populate(1, KINDS, {fault: 1.0} if fault else {}, seed=3)
    assert found.fault is fault
    return found


def verdicts(fault: Fault | None, before: Baseline) -> tuple[Verdict, Verdict]:
    import random

    who, chance = member(fault), random.Random(1)
    test = behaviour.test_evidence(who, asked(), chance)
    trial, _, _ = behaviour.trial_evidence(who, asked(), before, 10.0, chance)
    return combined(test.gates), combined(trial.gates)


def test_a_good_device_passes_its_test_and_its_trial() -> None:
    assert verdicts(None, Baseline()) == (Verdict.PASS, Verdict.PASS)


def test_a_device_that_is_to_fail_its_test_does() -> None:
    assert verdicts(Fault.FAILS_TEST, Baseline())[0] is Verdict.FAIL


def test_a_slow_device_fails_beside_what_it_ran_before() -> None:
    p95 = behaviour.latency(member(None), 50).p95_ms
    before = Baseline(release="0.9.0", inferred=50, confident=45, latency_p95_ms=p95)
    assert verdicts(None, before)[1] is Verdict.PASS
    assert verdicts(Fault.SLOW, before)[1] is Verdict.FAIL


def test_a_slow_device_keeps_its_first_release_and_fails_with_the_next() -> None:
    import random

    who, chance = member(Fault.SLOW), random.Random(1)
    first, did, _ = behaviour.trial_evidence(who, asked(), Baseline(), 10.0, chance)
    second, _, _ = behaviour.trial_evidence(who, asked(), did, 10.0, chance)
    assert [combined(one.gates) for one in (first, second)] == [Verdict.PASS, Verdict.FAIL]


def test_a_trial_lasts_until_enough_was_inferred_and_no_longer_than_allowed() -> None:
    policy = TrialPolicy(soak_s=2.0, min_inferred=50, timeout_s=60.0)
    assert behaviour.trial_seconds(policy, 10.0) == 5.0
    assert behaviour.trial_seconds(policy, 1000.0) == 2.0
    assert behaviour.trial_seconds(policy, 0.1) == 60.0


def test_the_page_has_every_fault_and_a_file_of_classes_that_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "simulate.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE) == [str(f) for f in FAULTS]
    [example] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "classes.toml").write_text(example)
    [kind] = read_classes(tmp_path / "classes.toml")
    fields = set(kind.__struct_fields__) - {"name"}
    assert all(f"{field} = " in example for field in fields), fields


def test_what_simulated_devices_report_is_what_gates_read() -> None:
    [kind] = [kind for kind in KINDS if kind.joules is not None and kind.temperature_c == 52.0]
    [member] = populate(1, [kind], {}, seed=1)
    running = DesiredModel(release="sha256:r", variant="sha256:v", release_version="1.0.0")
    sums = Sums()
    sums.add(behaviour.window(member, running, "digits", seconds=10.0, fps=20.0))
    found = dict(figures.of_sums(sums))
    assert {"latency_p95_ms", "error_rate", "memory_mb", "confident_share"} <= set(found)
    assert found["temperature_c"].value == 52.0
    assert found["energy_per_inference_j"].value == pytest.approx(kind.joules)
