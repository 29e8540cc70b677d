"""Hellos and presence: many in one transaction, in their order, each answered when it is stored."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.messages import Phase, Presence, ReportedModel, Up, encode
from cloud_sync.trust import PayloadType, generate, sign
from edgeml.errors import TrustError
from fleet.ingest import Ingest, Message
from fleet.services import Services, configuration_answers, devices

DEVICES = 5


@pytest.fixture
def site(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> list[Any]:
    found = [enroll(services, tmp_path, f"cam-{number}") for number in range(DEVICES)]
    for device in found:  # what they say from here on
        device.models = {"digits": ReportedModel(phase=Phase.IDLE)}
    return found


@pytest.fixture
def ingest(services: Services) -> Iterator[Ingest]:
    made = Ingest(services)
    yield made
    made.stop()


def hello(device: Any, key: Any = None) -> bytes:
    return sign(encode(device.hello()), PayloadType.HELLO, key or device.key)


def on_bus(device: Any, key: Any = None) -> Message:
    return Message(device.device, Up.HELLO, hello(device, key))


def presence(device: Any, *, online: bool) -> Message:
    return Message(device.device, Up.PRESENCE, encode(Presence(online=online)))


def models(services: Services, device: Any) -> set[str]:
    said = devices.show(services, device.device)["reported"]
    return set(said["models"]) if said else set()


def test_what_a_group_says_is_stored_in_one_transaction(
    services: Services, ingest: Ingest, site: list[Any]
) -> None:
    begun: list[object] = []
    services.database.check = begun.append
    nobody = Message("nobody", Up.PRESENCE, encode(Presence(online=True)))
    ingest._handle([*map(on_bus, site), presence(site[0], online=False), nobody])
    assert len(begun) == 1
    assert [models(services, device) for device in site] == [{"digits"}] * DEVICES
    assert [devices.show(services, device.device)["online"] for device in site] == [
        False,
        *[True] * (DEVICES - 1),
    ]


def test_what_a_device_says_several_times_in_a_group_is_taken_in_its_order(
    services: Services, ingest: Ingest, site: list[Any]
) -> None:
    group: list[Message] = []
    for named in ({"digits", "faces"}, {"faces"}, {"digits"}):
        site[0].models = dict.fromkeys(named, ReportedModel(phase=Phase.IDLE))
        group += [presence(site[0], online=False), on_bus(site[0])]
    ingest._handle(group)
    assert devices.show(services, "cam-0")["online"]
    assert models(services, site[0]) == {"digits"}


@pytest.mark.parametrize("online", [True, False])
def test_the_last_word_of_a_device_says_whether_it_is_there(
    services: Services, ingest: Ingest, site: list[Any], *, online: bool
) -> None:
    site[0].report("digits", ReportedModel(phase=Phase.IDLE))
    batch = sign(encode(site[0].outbox.batch()), PayloadType.BATCH, site[0].key)
    said = [presence(site[0], online=False), Message(site[0].device, Up.STATE, batch)]
    ingest._handle(said if online else said[::-1])
    assert devices.show(services, "cam-0")["online"] is online


def test_one_that_cannot_be_stored_or_is_forged_takes_no_other_with_it(
    services: Services, ingest: Ingest, site: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    note = configuration_answers.note

    def faulty(session: Any, device: str, *rest: Any) -> None:
        if device == "cam-1":
            raise ZeroDivisionError("a bug of ours")
        note(session, device, *rest)

    monkeypatch.setattr(configuration_answers, "note", faulty)
    over: list[str] = []
    group = [on_bus(device, generate() if device is site[2] else None) for device in site]
    for message in group:
        message.acknowledge = lambda name=message.device: over.append(name)
    ingest._handle(group)
    heard = [models(services, device) for device in site]
    assert heard == [{"digits"}, set(), set(), {"digits"}, {"digits"}]
    counted = services.counters.all()
    assert (counted["ingest.faults"], counted["security.forged-hello"]) == (1, 1)
    assert over == [device.device for device in site]


def test_who_says_hello_over_https_is_answered_when_it_is_stored(
    services: Services, ingest: Ingest, site: list[Any], operator: Any
) -> None:
    devices.configure(services, operator, "cam-0", {"telemetry_every_s": 3.0})
    waiting = [ingest.hello(device.device, hello(device)) for device in site]
    forged = ingest.hello("cam-0", hello(site[0], generate()))
    assert not any(one.done() for one in waiting)
    ingest.start()
    state = site[0].take(waiting[0].result(60))
    assert state.configuration.telemetry_every_s == 3.0
    assert [one.result(60) for one in waiting[1:]] == [b""] * (DEVICES - 1)
    with pytest.raises(TrustError):
        forged.result(60)
    assert [models(services, device) for device in site] == [{"digits"}] * DEVICES
