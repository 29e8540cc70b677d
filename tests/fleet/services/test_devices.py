import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.desired import accept
from cloud_sync.messages import Configuration, DesiredModel, encode
from cloud_sync.trust import PayloadType, key_id, sign
from edgeml.errors import UserError
from fleet.problem import NotFound
from fleet.services import Services, desired, devices, reported
from fleet.settings import MAX_CONFIGURATION_BYTES, parse_configuration

NIGHT = {"begins": "22:00", "ends": "05:00"}
SOURCE = {"name": "belt", "uri": "file:///belt.mp4", "model": "digits"}


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path, site="north")


def test_a_configuration_goes_out_as_a_desired_state(
    services: Services, device: Any, operator: Any
) -> None:
    info = devices.configure(services, operator, "cam-1", {"sources": [SOURCE]})
    state = device.take(reported.current_desired(services, "cam-1"))
    assert (state.epoch, state.counter) == (1, 1)
    assert state.configuration.config_version == 1
    assert state.configuration.sources[0].uri == "file:///belt.mp4"
    assert info["desired"] is not None
    assert info["desired"]["config_version"] == 1
    devices.configure(services, operator, "cam-1", {})
    assert device.take(reported.current_desired(services, "cam-1")).counter == 2


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"telemtry_every_s": 1}, "telemtry_every_s"),
        ({"config_version": 7}, "config_version"),
        ({"sources": [{**SOURCE, "frames": 3}]}, "frames of source 1"),
        ({"sources": [{"name": "belt"}]}, "uri"),
        ({"sources": "belt"}, "list of tables"),
        ({"sources": [SOURCE, SOURCE]}, "same name"),
        ({"sources": [{**SOURCE, "uri": "belt.mp4"}]}, "without a scheme"),
        ({"sources": [{**SOURCE, "fps": 0}]}, "not positive"),
        ({"mirrors": ["http://cache.example"]}, "without TLS"),
        ({"telemetry_every_s": 0}, "at least"),
        ({"telemetry_every_s": float("nan")}, "at least"),
        ({"site": {"digits": 3}}, "site"),
        ({"capture": {"digits": {"every": 3}}}, "every of capture.digits"),
        ({"capture": {"digits": {"keep_mb": 0}}}, "keep_mb"),
        ({"capture": {"digits": {}}}, "capture.digits is empty"),
        ({"update_windows": [{**NIGHT, "day": "mon"}]}, "day of update window 1"),
        ({"update_windows": [{**NIGHT, "days": ["monday"]}]}, "monday"),
        ({"update_windows": [{**NIGHT, "ends": "25:00"}]}, "ends of update window 1 is no time"),
        ({"update_windows": [{**NIGHT, "timezone": "Berlin"}]}, "'Berlin'"),
        ({"update_windows": "night"}, "update_windows must be a list of tables"),
        ({"site": {"digits": {"threshold": float("nan")}}}, "not finite"),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_key(
    services: Services, device: Any, operator: Any, settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError) as error:
        devices.configure(services, operator, "cam-1", settings)
    assert why in str(error.value)
    assert devices.show(services, "cam-1")["desired"] is None


@given(
    st.dictionaries(
        st.sampled_from(
            ["sources", "site", "telemetry_every_s", "update_windows", "capture", "other"]
        ),
        st.recursive(
            st.none() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["name", "uri", "model", "fps", "x"]), inner)
            ),
            max_leaves=8,
        ),
    )
)
def test_any_settings_are_a_configuration_or_one_sentence(settings: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse_configuration(settings), Configuration)


def test_a_device_that_is_not_there_is_not_found(services: Services, operator: Any) -> None:
    with pytest.raises(NotFound):
        devices.show(services, "cam-9")
    with pytest.raises(NotFound):
        devices.configure(services, operator, "cam-9", {})


def test_devices_are_chosen_by_labels_in_pages(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> None:
    for number in range(1, 6):
        enroll(services, tmp_path, f"cam-{number}", site="north" if number % 2 else "south")
    page = devices.list_devices(services, selector="site=north", limit=2)
    assert [item["device"] for item in page["items"]] == ["cam-1", "cam-3"]
    assert page["next"] == "cam-3"
    rest = devices.list_devices(services, selector="site=north", after="cam-3", limit=2)
    assert ([item["device"] for item in rest["items"]], rest["next"]) == (["cam-5"], None)
    devices.set_labels(services, operator, "cam-1", {"site": "south"})
    found = devices.list_devices(services, selector="site=south")["items"]
    assert [item["device"] for item in found] == ["cam-1", "cam-2", "cam-4"]


def test_a_device_that_has_not_been_heard_of_is_offline(
    services: Services, device: Any, clock: Any
) -> None:
    assert devices.show(services, "cam-1")["online"]
    assert devices.count(services) == (1, 1)
    clock.now += devices.ONLINE_S + 1
    assert not devices.show(services, "cam-1")["online"]
    assert devices.count(services) == (1, 0)


def test_a_key_that_two_machines_use_is_shown(
    services: Services, device: Any, tmp_path: Path, window: Any
) -> None:
    from cloud_sync.messages import RecordKind, encode
    from cloud_sync.outbox import Outbox
    from cloud_sync.trust import PayloadType, sign
    from fleet.services import records, security

    clone = Outbox(tmp_path / "clone.outbox", "cam-1", "boot-2")
    original = device.outbox
    for outbox in (original, clone, original):
        device.outbox = outbox
        outbox.append(RecordKind.TELEMETRY, window())
        hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
        reported.hello(services, "cam-1", hello)
        envelope = sign(encode(outbox.batch()), PayloadType.BATCH, device.key)
        signed = records.verify(services, "cam-1", envelope, device.key.public_key())
        records.store(services, [signed])
    clone.close()
    assert [event["kind"] for event in security.events(services)["items"]] == ["cloned-key"]


def site_of(size: int) -> dict[str, Any]:
    """Settings whose encoding has this many bytes."""
    empty = len(msgspec.json.encode(Configuration(site={"digits": {"x": ""}})))
    return {"site": {"digits": {"x": "y" * (size - empty)}}}


def test_the_largest_configuration_is_accepted_by_the_device_and_fits_its_hello(
    services: Services, device: Any, operator: Any, wanted: DesiredModel
) -> None:
    with services.database.write() as session:
        for number in range(200):
            desired.want(session, "cam-1", f"model-{number}", wanted)
    devices.configure(services, operator, "cam-1", site_of(MAX_CONFIGURATION_BYTES))
    envelope = reported.current_desired(services, "cam-1")
    assert envelope is not None
    keys = {key_id(key): key for key in [services.keys.director.public_key()]}
    accept(envelope, device="cam-1", keys=keys, last=(0, 0), now=services.now())
    device.take(envelope)
    hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
    assert reported.hello(services, "cam-1", hello) == envelope


def test_a_configuration_that_would_make_the_device_deaf_is_refused(
    services: Services, device: Any, operator: Any
) -> None:
    with pytest.raises(UserError, match=r"It has 131073 bytes; at most 131072"):
        devices.configure(services, operator, "cam-1", site_of(MAX_CONFIGURATION_BYTES + 1))
    assert devices.show(services, "cam-1")["configuration"]["site"] == {}


def test_a_desired_state_that_no_device_takes_is_not_signed(
    services: Services, device: Any, wanted: DesiredModel
) -> None:
    def sign_too_much() -> None:
        with services.database.write() as session:
            for number in range(1000):
                desired.want(session, "cam-1", f"model-{number}", wanted)
            desired.reissue(services, session, "cam-1")

    with pytest.raises(UserError, match="cannot be signed"):
        sign_too_much()
    assert reported.current_desired(services, "cam-1") is None
