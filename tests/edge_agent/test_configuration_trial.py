"""A configuration is tried, and then committed or rolled back with the reason."""

import json
from pathlib import Path

import pytest

from cloud_sync.messages import Configuration, DesiredState, SourceConfig
from edge_agent.configuration_trial import OWN_KINDS, PATIENCE_S, Seen, judge, needs_trial
from edge_agent.sources import SCHEMES
from edge_agent.twin import MAX_TRIAL_BOOTS, Twin
from edge_agent.update.journal import Journal, read_state

DOOR = SourceConfig(name="door", uri="push:", model="toy")
BELT = SourceConfig(name="belt", uri="push:", model="toy")
BEFORE = Configuration(config_version=1, sources=(DOOR,))
SITED = Configuration(config_version=2, sources=(DOOR,), site={"toy": {"threshold": 0.9}})
SOURCED = Configuration(config_version=2, sources=(DOOR, BELT))


def seen(seconds: float = 1.0, belt: bool = False, toy: tuple[int, int] = (0, 0)) -> Seen:
    sources = {"door": (False, "stalled"), "belt": (belt, "" if belt else "no such camera")}
    return Seen(seconds=seconds, sources=sources, models={"toy": toy})


def test_only_new_sources_and_site_parameters_need_a_trial() -> None:
    assert needs_trial(BEFORE, SITED)
    assert needs_trial(BEFORE, SOURCED)
    assert not needs_trial(SOURCED, BEFORE)  # one less
    assert not needs_trial(BEFORE, Configuration(sources=(DOOR,), telemetry_every_s=1.0))


@pytest.mark.parametrize(
    ("after", "what", "verdict"),
    [
        (SOURCED, seen(belt=True), ""),
        (SOURCED, seen(), None),
        (SOURCED, seen(PATIENCE_S), "the source 'belt' gave no frame in 30 s: no such camera"),
        (SITED, seen(toy=(9, 0)), None),
        (SITED, seen(toy=(10, 0)), ""),
        (SITED, seen(toy=(0, 10)), "10 of 10 frames of toy failed with it"),
        (SITED, seen(toy=(10, 10)), ""),  # as many failed before
        (SITED, seen(PATIENCE_S), ""),  # a model that sees nothing says nothing against it
    ],
)
def test_the_verdict(after: Configuration, what: Seen, verdict: str | None) -> None:
    assert judge(BEFORE, after, what) == verdict


@pytest.mark.parametrize(
    "uri",
    [
        "v4l2:///dev/video7", "rtsp://camera/1", "RTSPS://camera/1", "http://camera/1",
        "https://camera/1", "alsa:default", "plugged:in",
    ],
)  # fmt: skip
def test_a_camera_that_is_off_is_waited_for_and_vetoes_nothing(uri: str) -> None:
    gate = SourceConfig(name="gate", uri=uri, model="toy")
    after = Configuration(config_version=2, sources=(DOOR, gate, BELT))

    def look(seconds: float, *, belt: bool) -> Seen:
        gone = (False, "cannot be opened")
        return Seen(seconds=seconds, sources={"gate": gone, "belt": (belt, "no such folder")})

    assert judge(BEFORE, after, look(1.0, belt=True)) is None
    assert judge(BEFORE, after, look(PATIENCE_S, belt=True)) == ""
    vetoed = judge(BEFORE, after, look(PATIENCE_S, belt=False))
    assert vetoed is not None
    assert "'belt' gave no frame" in vetoed
    assert "gate" not in vetoed


def test_every_kind_of_this_device_s_own_is_one_that_there_is() -> None:
    assert set(SCHEMES) > OWN_KINDS


def twin(folder: Path) -> Twin:
    return Twin(Journal(folder / "state.json"), lambda _record: None, dict)


def accept(it: Twin, configuration: Configuration) -> None:
    counter = it.state.counter + 1
    wanted = DesiredState(
        device="cam-1",
        epoch=1,
        counter=counter,
        issued_at=1.0,
        expires_at=2.0,
        configuration=configuration,
    )
    it.accept(wanted, json.dumps({"counter": counter}))


def begun(folder: Path) -> Twin:
    it = twin(folder)
    accept(it, BEFORE)
    it.judge(lambda _s: Seen(seconds=0.0, sources={"door": (True, "")}))
    assert it.state.configuration == BEFORE
    return it


def test_what_is_tried_is_followed_and_reported_only_when_it_was_committed(tmp_path: Path) -> None:
    it = begun(tmp_path)
    accept(it, SOURCED)
    assert it.configuration == SOURCED
    assert it.state.reported().config_version == 1
    assert not it.judge(lambda _s: seen())
    assert it.judge(lambda _s: seen(belt=True))
    assert it.state.reported().config_version == 2
    assert read_state(tmp_path / "state.json").trying is None


def test_one_that_fails_is_rolled_back_with_the_reason(tmp_path: Path) -> None:
    it = begun(tmp_path)
    accept(it, SOURCED)
    assert it.judge(lambda _s: seen(PATIENCE_S))
    assert it.configuration == BEFORE
    reported = it.state.reported()
    assert reported.config_version == 1
    assert "no such camera" in reported.config_error
    # The fleet's repeated word does not begin it again; a newer one does.
    assert not it.is_due()
    accept(it, SITED)
    assert (it.configuration, it.state.config_error) == (SITED, "")


def test_one_with_which_the_agent_keeps_starting_is_rolled_back(tmp_path: Path) -> None:
    accept(begun(tmp_path), SOURCED)
    for _ in range(MAX_TRIAL_BOOTS - 1):
        it = twin(tmp_path)
        it.restarted()
        assert it.configuration == SOURCED
    it = twin(tmp_path)
    it.restarted()
    assert it.configuration == BEFORE
    assert "had to start 3 times" in it.state.config_error
