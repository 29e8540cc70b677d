from pathlib import Path

import pytest

from fleet.console.feed import read
from fleet.console.view import MAX_DEVICES, Overview, number, size, tone
from tests.fleet.console.scenes import HALTED, SOAKING, SceneReader


def scene(tmp_path: Path, name: str) -> Overview:
    file = tmp_path / "scene"
    file.write_text(name)
    return read(SceneReader(file))


def test_the_sentence_is_the_engines_own(tmp_path: Path) -> None:
    cards = scene(tmp_path, "story").rollouts
    assert [card.sentence for card in cards[:2]] == [SOAKING, HALTED]
    assert [card.title for card in cards] == ["digits:1.2.0", "digits:1.1.0", "digits:1.0.0"]


def test_waves_are_steps_that_say_where_the_rollout_stands(tmp_path: Path) -> None:
    running, halted, done = scene(tmp_path, "story").rollouts
    assert [(s.label, s.state) for s in running.steps] == [
        ("1 device", "now"),
        ("25 %", "next"),
        ("100 %", "next"),
    ]
    assert [s.state for s in halted.steps] == ["stopped", "next"]
    assert [s.state for s in done.steps] == ["done", "done"]


def test_gates_are_grouped_by_hardware_class_with_value_and_bound(tmp_path: Path) -> None:
    halted = scene(tmp_path, "story").rollouts[1]
    assert [group.title for group in halted.groups] == [
        "The whole wave",
        "x86_64-avx512_vnni-2c",
    ]
    share = halted.groups[1].gates[1]
    assert (share.label, share.numbers) == ("Confident share", "0.03, at least 0.77")
    assert share.tone == "bad"
    assert share.plot is not None
    assert share.plot.baseline is not None


def test_devices_are_cells_whose_words_say_what_their_colour_says(tmp_path: Path) -> None:
    cells = scene(tmp_path, "story").rollouts[1].cells
    assert (cells[0].name, cells[0].tone) == ("cam-1", "bad")
    assert cells[0].text.startswith("failed, rolled back: 3% of 60")
    assert (cells[1].tone, cells[1].text) == ("idle", "waiting")


def test_a_rollout_in_motion_and_the_latest_are_open(tmp_path: Path) -> None:
    assert [card.is_open for card in scene(tmp_path, "story").rollouts] == [True, False, False]
    assert [card.is_open for card in scene(tmp_path, "halted").rollouts] == [True, False]


def test_the_summary_says_how_the_fleet_is(tmp_path: Path) -> None:
    shown = scene(tmp_path, "story").summary
    assert (shown.devices, shown.tone) == ("2 of 3 devices are online", "warn")
    assert shown.facts[0] == "In motion: digits:1.2.0"
    assert not shown.notices


def test_a_paused_rollout_is_amber_and_counted(tmp_path: Path) -> None:
    shown = scene(tmp_path, "paused")
    assert shown.rollouts[0].tone == "warn"
    assert [step.state for step in shown.rollouts[0].steps] == ["paused", "next"]
    assert shown.summary.facts[0] == "No rollout in motion, 1 paused"


def test_an_aborted_rollout_stopped_where_it_was(tmp_path: Path) -> None:
    assert [s.state for s in scene(tmp_path, "aborted").rollouts[0].steps] == ["aborted", "next"]


def test_a_device_taken_back_to_nothing_runs_nothing(tmp_path: Path) -> None:
    shown = scene(tmp_path, "nothing")
    assert shown.rollouts[0].cells[0].text == "restored, runs nothing, as before"
    assert (shown.devices[0].runs, shown.devices[0].update) == ("runs nothing", "")


def test_a_refused_configuration_is_told_with_its_reason(tmp_path: Path) -> None:
    row = scene(tmp_path, "refused").devices[0]
    assert row.trouble == (
        "configuration 4 refused, runs 3: the source 'belt': it needs a name and a model"
    )
    assert row.tone == "warn"


def test_trouble_with_the_fleet_itself_is_noticed(tmp_path: Path) -> None:
    notices = scene(tmp_path, "trouble").summary.notices
    assert [n.tone for n in notices] == ["bad", "warn", "bad"]
    assert "the database was restored" in notices[0].text
    assert "refused to trust a release, 2 times" in notices[2].text


def test_devices_that_want_attention_come_first_and_many_are_counted(tmp_path: Path) -> None:
    few = scene(tmp_path, "story").devices
    assert [(d.name, d.online) for d in few][:2] == [("cam-3", False), ("cam-1", True)]
    assert few[0].seen == "last seen 6 min ago"
    assert few[1].update == "digits: trial"
    many = scene(tmp_path, "many")
    assert len(many.devices) == MAX_DEVICES
    assert many.more_devices == 1000 - MAX_DEVICES
    assert many.unread_devices == 0


def test_releases_say_where_they_run(tmp_path: Path) -> None:
    rows = scene(tmp_path, "story").releases
    assert [(r.name, r.running) for r in rows] == [
        ("digits:1.2.0", 1),
        ("digits:1.1.0", 0),
        ("digits:1.0.0", 2),
    ]
    assert rows[0].about == "1 variant, 412 kB"


def test_events_of_another_day_name_it(tmp_path: Path) -> None:
    events = scene(tmp_path, "story").events
    assert (events[0].day, events[-1].day) == ("", "20 Sep")
    assert events[2].what == "rollout.halt digits-1.1.0-ab12cd"
    assert events[2].tone == "bad"


def test_the_same_fleet_gives_the_same_page(tmp_path: Path) -> None:
    assert scene(tmp_path, "story") == scene(tmp_path, "story")
    assert scene(tmp_path, "story") != scene(tmp_path, "halted")


def test_an_empty_fleet_has_a_page(tmp_path: Path) -> None:
    empty = scene(tmp_path, "empty")
    assert (empty.summary.devices, empty.summary.tone) == ("No device yet", "idle")
    assert (empty.rollouts, empty.devices, empty.releases, empty.events) == ((), (), (), ())


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (412_345, "412 kB"), (2_500_000, "2.5 MB")]
)
def test_bytes_are_written_for_people(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(0.0, "", "0"), (3.14159, "ms", "3.14 ms"), (41234.0, "", "41,234")]
)
def test_numbers_have_the_digits_that_say_something(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


@pytest.mark.parametrize(
    ("state", "expected"),
    [("committed", "good"), ("rolled_back", "bad"), ("trial", "busy"), ("", "idle")],
)
def test_a_state_has_its_tone(state: str, expected: str) -> None:
    assert tone(state) == expected
