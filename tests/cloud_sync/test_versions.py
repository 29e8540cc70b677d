"""What fleets of released versions have sent down, read by the agent's side of today."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cloud_sync.commands import accept_command
from cloud_sync.desired import accept
from cloud_sync.messages import Ack, Enrolled, Presence, UnknownVersion, decode
from cloud_sync.release import read_release
from cloud_sync.trust import PayloadType, open_envelope
from cloud_sync.trust.messages import SignedTime
from edgeml.errors import RemoteError
from tests.recorded import Recording, versions, with_more

pytestmark = pytest.mark.parametrize("version", versions())
Change = Callable[[Any], Any]
CHANGES = pytest.mark.parametrize("change", [lambda said: said, with_more], ids=["same", "newer"])


def opened(recording: Recording, envelope: bytes, kind: PayloadType, change: Change) -> bytes:
    """The payload, as it was or as a later fleet may say it."""
    payload = open_envelope(envelope, recording.directors, kind)
    return json.dumps(change(json.loads(payload))).encode()


def test_a_desired_state_is_accepted(version: str) -> None:
    recording = Recording(version)
    last = (0, 0)
    for envelope in recording.on("down/desired"):
        state = accept(
            envelope,
            device=recording.device,
            keys=recording.directors,
            last=last,
            now=recording.recorded_at,
        )
        last = (state.epoch, state.counter)
    assert state.models["toy"].release_version == "1.0.0"
    assert state.configuration.sources[0].name == "pictures"


@CHANGES
def test_acknowledgements_commands_and_the_time_are_read(version: str, change: Change) -> None:
    recording = Recording(version)
    for envelope in recording.on("down/ack"):
        ack = decode(opened(recording, envelope, PayloadType.ACK, change), Ack)
        assert ack.device == recording.device
        assert ack.through > 0
    [envelope] = recording.on("down/command")
    payload = opened(recording, envelope, PayloadType.COMMAND, change)
    command = accept_command(payload, device=recording.device, now=recording.recorded_at)
    assert command.kind == "diagnostics"
    [told] = [e for e in recording.exchanges if e.path.endswith("/time") and e.status == 200]
    time = decode(opened(recording, told.answer, PayloadType.TIME, change), SignedTime)
    assert time.nonce == json.loads(told.body)["nonce"]


@CHANGES
def test_an_enrolment_is_read(version: str, change: Change) -> None:
    recording = Recording(version)
    [exchange] = [e for e in recording.exchanges if e.path.endswith("/enroll")]
    enrolled = decode(json.dumps(change(json.loads(exchange.answer))).encode(), Enrolled)
    assert enrolled.device == recording.device
    assert enrolled.mqtt.url.startswith("mqtt")


@CHANGES
def test_what_a_broker_says_of_a_device_is_read(version: str, change: Change) -> None:
    for payload in Recording(version).on("up/presence"):
        assert isinstance(
            decode(json.dumps(change(json.loads(payload))).encode(), Presence), Presence
        )


def test_a_release_of_that_version_is_read(version: str) -> None:
    recording = Recording(version)
    held = {
        e.path.rpartition("/")[2]: e.answer
        for e in recording.exchanges
        if e.path.startswith("/v2/") and e.status == 200
    }
    [state] = recording.on("down/desired")[-1:]
    wanted = json.loads(open_envelope(state, recording.directors, PayloadType.DESIRED))
    digest = wanted["models"]["toy"]["release"]
    release = read_release(lambda wanted, _limit: held[wanted], digest)
    assert (release.model, release.version) == ("toy", "1.0.0")


def test_another_major_version_is_refused_with_a_reason(version: str) -> None:
    recording = Recording(version)
    envelope = recording.on("down/ack")[0]
    other = opened(recording, envelope, PayloadType.ACK, lambda said: said | {"version": 2})
    with pytest.raises(UnknownVersion, match="of version 2 was refused") as refused:
        decode(other, Ack)
    assert isinstance(refused.value, RemoteError)
    assert "This edgeml speaks version 1" in refused.value.why
