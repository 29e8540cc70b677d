from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_sync.messages import Configuration, encode
from cloud_sync.trust import PayloadType, sign
from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.rollouts import parse_policy
from fleet.services import (
    Services,
    configuration,
    configuration_changes,
    configuration_shown,
    decommission,
    devices,
    releases,
    reported,
)
from fleet.services.configuration_changes import Change

BELT = {"name": "belt", "uri": "file:///belt.mp4", "model": "digits"}


def change(services: Services, operator: Any, layer: str, said: Any, **more: Any) -> Any:
    """A change of a layer that no device has yet holds at once."""
    asked = Change(layer=layer, settings=said, **more)
    return configuration_changes.begin(services, operator, asked, parse_policy(""))


def origins(services: Services, device: str = "cam-1") -> dict[str, tuple[Any, str]]:
    found = configuration_shown.show(services, device)["settings"]
    return {s["key"]: (s["value"], s["origin"]) for s in found if s["origin"] != "default"}


def wanted(services: Services, device: str = "cam-1") -> Configuration:
    with services.database.read() as session:
        row = session.get_one(tables.Device, device)
    return msgspec.json.decode(row.configuration, type=Configuration)


def test_a_new_device_has_what_the_fleet_and_its_labels_say(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> None:
    change(services, operator, "fleet", {"telemetry_every_s": 60.0})
    change(services, operator, "north", {"max_download_bytes_s": 5}, selector="site=north")
    device = enroll(services, tmp_path, "cam-1", site="north")
    assert device.counter == 1
    assert (wanted(services).telemetry_every_s, wanted(services).max_download_bytes_s) == (60.0, 5)
    assert origins(services) == {
        "telemetry_every_s": (60.0, "fleet@1"),
        "max_download_bytes_s": (5, "north@1"),
    }
    assert configuration_shown.show(services, "cam-1")["status"] == "pending"


def test_a_device_that_moves_has_what_its_new_labels_say(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> None:
    change(services, operator, "north", {"telemetry_every_s": 5.0}, selector="site=north")
    enroll(services, tmp_path, "cam-1", site="south")
    assert wanted(services) == Configuration()
    devices.set_labels(services, operator, "cam-1", {"site": "north"})
    assert wanted(services).telemetry_every_s == 5.0
    devices.set_labels(services, operator, "cam-1", {"site": "south"})
    assert wanted(services) == Configuration(config_version=2)


@pytest.mark.sqlite
def test_a_devices_own_layer_says_the_rest_of_a_source(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> None:
    change(services, operator, "fleet", {"sources": [{"name": "belt", "fps": 2.0}]})
    enroll(services, tmp_path)
    assert wanted(services).sources == ()
    devices.configure(services, operator, "cam-1", {"sources": [BELT]})
    [source] = wanted(services).sources
    assert (source.uri, source.fps) == ("file:///belt.mp4", 2.0)
    assert origins(services)["sources.belt.fps"] == (2.0, "fleet@1")
    assert origins(services)["sources.belt.uri"] == ("file:///belt.mp4", "device:cam-1@1")


def test_equal_layers_that_disagree_are_refused_and_shown_where_they_meet_later(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> None:
    said = {"telemetry_every_s": 5.0, "max_download_bytes_s": 1}
    change(services, operator, "west", said, selector="site=west")
    change(services, operator, "wifi", {"telemetry_every_s": 9.0}, selector="link=wifi")
    enroll(services, tmp_path, "cam-1", site="west", link="wifi")
    shown = configuration_shown.show(services, "cam-1")
    assert shown["conflicts"] == [{"key": "telemetry_every_s", "layers": ["west@1", "wifi@1"]}]
    assert wanted(services).telemetry_every_s == Configuration().telemetry_every_s
    with pytest.raises(Conflict, match=r"cam-1.*disagree about max_download_bytes_s"):
        change(services, operator, "wifi", {"max_download_bytes_s": 2})


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"layer": "North!", "settings": {}, "selector": "a=b"}, "layer's name"),
        ({"layer": "north", "settings": {}}, "by a label"),
        ({"layer": "fleet", "settings": {}, "selector": "a=b"}, "for all devices"),
        ({"layer": "fleet", "settings": {"colour": 1}}, "colour"),
        ({"layer": "fleet", "settings": {"telemetry_every_s": 0.0}}, "telemetry_every_s"),
        ({"layer": "fleet", "settings": {"sources": [{"name": "a", "absent": 1}]}}, "absent"),
        ({"layer": "device:cam-1", "settings": {}, "selector": "a=b"}, "layer's name"),
    ],
)
def test_a_wrong_change_is_refused_with_what_is_wrong(
    services: Services, operator: Any, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        configuration_changes.begin(services, operator, Change(**asked), parse_policy(""))
    assert configuration_changes.layers(services) == []


@pytest.mark.sqlite
def test_a_layers_devices_never_change(services: Services, operator: Any) -> None:
    change(services, operator, "north", {}, selector="site=north", priority=3)
    with pytest.raises(UserError, match="for good"):
        change(services, operator, "north", {}, selector="site=south")
    change(services, operator, "north", {"telemetry_every_s": 3.0})
    layer = configuration_changes.layer(services, "north")
    assert (layer["selector"], layer["priority"], layer["number"]) == ("site=north", 3, 2)


@pytest.mark.sqlite
def test_what_a_release_does_not_let_a_site_set_is_refused_before_anyone_is_told(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any, kit: Any
) -> None:
    release = kit.write_release(tmp_path / "release")
    kit_layout(services, tmp_path / "release")
    releases.register(services, operator, "digits", release.digest)
    enroll(services, tmp_path)
    with services.database.write() as session:
        session.add(
            tables.DesiredModel(
                device="cam-1", model="digits", release=release.digest,
                variant=release.variants[0].digest, release_version="1.0.0", rollout="",
                attempt=1, nonce="", trial="{}",
            )
        )  # fmt: skip
    site = {"site": {"digits": {"threshold": 0.5}}}
    with pytest.raises(UserError, match="does not let a site set threshold; it allows nothing"):
        devices.configure(services, operator, "cam-1", site)
    with pytest.raises(Conflict, match="does not let a site set threshold"):
        change(services, operator, "fleet", site)
    assert wanted(services) == Configuration()


def kit_layout(services: Services, folder: Path) -> None:
    """Put a release's blobs into the registry, as a push does."""
    for blob in (folder / "blobs" / "sha256").iterdir():
        services.registry.blobs.put_file(blob)


def test_a_device_that_is_decommissioned_leaves_no_address_behind(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any
) -> None:
    enroll(services, tmp_path)
    devices.configure(services, operator, "cam-1", {"sources": [BELT]})
    decommission.decommission(services, operator, "cam-1", wipe=False)
    with services.database.read() as session:
        assert session.query(tables.ConfigurationRevision).count() == 0
        assert session.query(tables.ConfigurationLayer).count() == 0


def test_after_a_restore_a_device_keeps_what_it_holds_as_its_own(
    services: Services, tmp_path: Path, enroll: Callable[..., Any], operator: Any, backups: Any
) -> None:
    device = enroll(services, tmp_path)
    devices.configure(services, operator, "cam-1", {"telemetry_every_s": 2.0, "sources": [BELT]})
    copy = backups.take(services)
    devices.configure(services, operator, "cam-1", {"telemetry_every_s": 3.0})
    say_hello(services, device)
    services = backups.restore(services, copy)
    assert wanted(services).telemetry_every_s == 2.0
    say_hello(services, device)
    held = wanted(services)
    assert (held.telemetry_every_s, held.sources) == (3.0, ())
    assert origins(services)["telemetry_every_s"] == (3.0, "device:cam-1@2")
    with services.database.write() as session:
        assert configuration.refresh(services, session, ["cam-1"]) == []
    services.database.close()


def say_hello(services: Services, device: Any) -> None:
    hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
    device.take(reported.hello(services, device.device, hello))


@pytest.mark.sqlite
def test_what_there_is_not_is_said(services: Services) -> None:
    with pytest.raises(NotFound, match="no layer"):
        configuration_changes.layer(services, "north")
    with pytest.raises(NotFound, match="no device"):
        configuration_shown.show(services, "cam-1")
    with pytest.raises(NotFound, match="no device"):
        configuration.own_settings(services, "cam-1")
