"""What goes before captured frames; tests/fleet/test_samples.py brings some up."""

from pathlib import Path
from typing import Literal

import pytest

from cloud_sync.messages import CapturePolicy, Configuration, DesiredModel, Phase
from cloud_sync.update_machine import IN_MOTION, ModelState
from edge_agent.sample_upload import Days, at_work
from edge_agent.update.journal import DeviceState
from edgeml.errors import DeviceError

DAY_S = 86400.0


def state(phase: Phase, until: Literal["", "prepared"] = "") -> DeviceState:
    candidate = DesiredModel(
        release="sha256:" + "a" * 64,
        variant="sha256:" + "b" * 64,
        release_version="1.0.0",
        nonce="n",
        until=until,
    )
    return DeviceState(models={"toy": ModelState(phase=phase, candidate=candidate)})


@pytest.mark.parametrize("phase", list(Phase))
def test_frames_wait_for_whatever_an_update_does(phase: Phase) -> None:
    assert at_work(state(phase), lambda: "") is (phase in IN_MOTION)


def test_an_update_that_waits_for_its_window_or_its_group_holds_up_nothing() -> None:
    assert not at_work(state(Phase.DOWNLOADING), lambda: "it waits for its update window")
    assert at_work(state(Phase.TRIAL), lambda: "it waits for its update window")
    assert not at_work(state(Phase.PREPARED, until="prepared"), lambda: "")


def test_frames_wait_for_the_trial_of_a_configuration() -> None:
    assert at_work(DeviceState(trying=Configuration()), lambda: "")


def test_what_was_sent_today_is_known_after_a_restart_and_forgotten_tomorrow(
    tmp_path: Path,
) -> None:
    policy, now = CapturePolicy(upload_mb_a_day=1), [40 * DAY_S]
    Days(tmp_path / "samples.json", lambda: now[0]).add("toy", 1000)
    again = Days(tmp_path / "samples.json", lambda: now[0])
    assert again.left("toy", policy) == (1 << 20) - 1000
    assert again.left("faces", policy) == 1 << 20
    again.add("toy", -400)
    assert again.left("toy", policy) == (1 << 20) - 600
    now[0] += DAY_S
    assert again.left("toy", policy) == 1 << 20
    with pytest.raises(DeviceError, match="cannot be written"):
        Days(tmp_path / "nowhere" / "samples.json", lambda: now[0]).add("toy", 1)
