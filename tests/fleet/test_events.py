"""Live state: over HTTP from a real fleet, and the queues' bounds."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet.events import EventHub, Listener, Told, resync
from fleet.events_state import MAX_DEVICES, Event, between, read
from fleet.problem import TooMany
from fleet.rollouts.selector import parse_selector
from fleet.services import alerts, security


class Stream:
    """What a client of `/api/v1/events` reads."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def next(self, *types: str) -> dict[str, Any]:
        """The next event of some types, with its id and type."""
        found: dict[str, Any] = {}
        for line in self._lines:
            name, _, value = line.partition(":")
            if not line and found:
                if not types or found["event"] in types:
                    return found
                found = {}
            elif name in {"event", "id"}:
                found[name] = value.strip()
            elif name == "data":
                found.update(json.loads(value))
        raise AssertionError("the stream ended")


@contextmanager
def streaming(fleet: Any, query: str = "", last: str = "") -> Iterator[Stream]:
    headers = {"Authorization": f"Bearer {fleet.services.keys.operator_token}"}
    headers |= {"Last-Event-ID": last} if last else {}
    url = f"{fleet.operators}/api/v1/events{query}"
    with httpx.stream("GET", url, headers=headers, timeout=60.0) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Stream(answer.iter_lines())


def test_a_stream_begins_with_a_resync_and_tells_what_changes(fleet: Any, make_device: Any) -> None:
    with streaming(fleet) as stream:
        first = stream.next()
        assert (first["event"], first["reason"]) == ("resync", "connected")
        make_device("cam-1", site="north")
        assert stream.next("device")["device"] == "cam-1"
        security.record(fleet.services, "forged-hello", "cam-1", "")
        alerts.look(fleet.services)
        told = stream.next("alert")
        assert (told["subject"], told["state"]) == ("cam-1", "firing")


def test_a_stream_that_was_cut_goes_on_where_it_was(fleet: Any, make_device: Any) -> None:
    with streaming(fleet, "?types=device") as stream:
        stream.next("resync")
        make_device("cam-1")
        last = stream.next("device")["id"]
        with streaming(fleet, "?types=device") as other:  # sees that cam-2 was told
            other.next("resync")
            make_device("cam-2")
            other.next("device")
    with streaming(fleet, "?types=device", last) as stream:
        assert stream.next()["device"] == "cam-2"
    with streaming(fleet, last="0badcafe-7") as stream:
        assert stream.next()["reason"] == "missed"


def test_an_unknown_type_is_refused(http: httpx.Client) -> None:
    answer = http.get("/api/v1/events?types=weather")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_one_client_too_many_is_refused(services: Any) -> None:
    async def crowd() -> None:
        hub = EventHub(services, clients=1)
        hub.join(Listener(["health"]))
        with pytest.raises(TooMany):
            hub.require_room()
        await asyncio.to_thread(hub.close)

    asyncio.run(crowd())


def device(name: str, **labels: str) -> Told:
    return Told(id=name, event=Event(type="device", subject=name, data={}, labels=labels))


def test_a_client_that_is_too_slow_is_told_to_begin_anew() -> None:
    async def slow() -> None:
        listener = Listener(["device"], waiting=3)
        listener.take([device(str(n)) for n in range(5)])
        first, second = await listener.next(1.0), await listener.next(1.0)
        assert first is not None
        assert second is not None
        assert (first.event.type, first.event.data) == ("resync", {"reason": "slow"})
        assert second.id == "4"
        assert await listener.next(0.01) is None

    asyncio.run(slow())


def test_a_team_hears_of_its_own_devices_alone() -> None:
    async def scoped() -> None:
        listener = Listener(["device", "rollout"], parse_selector("site=north"))
        rollout = Told(id="r", event=Event(type="rollout", subject="r", data={}))
        told = [device("a", site="south"), rollout, device("b", site="north"), device("c")]
        listener.take([*told, resync("x", "connected")])
        found = [await listener.next(1.0), await listener.next(1.0)]
        assert [one.id for one in found if one] == ["b", "x"]
        assert await listener.next(0.01) is None

    asyncio.run(scoped())


def test_a_team_is_told_no_name_where_nobody_read_the_labels() -> None:
    async def scoped() -> None:
        listener = Listener(["device", "devices"], parse_selector("site!=south"))
        unread = Event(type="device", subject="cam-south", data={"device": "cam-south"})
        many = Event(type="devices", subject="", data={"changed": 300})
        listener.take([Told(id="a", event=unread), Told(id="b", event=many)])
        found = [await listener.next(1.0), await listener.next(1.0)]
        assert [(one.id, one.event.type, one.event.data) for one in found if one] == [
            ("a", "resync", {"reason": "missed"}),
            ("b", "resync", {"reason": "missed"}),
        ]

    asyncio.run(scoped())


def test_one_person_leaves_room_for_others(services: Any) -> None:
    async def crowd() -> None:
        hub = EventHub(services, clients=8)
        for _ in range(2):
            hub.require_room("alice")
            hub.join(Listener(["health"], who="alice"))
        with pytest.raises(TooMany):
            hub.require_room("alice")
        hub.require_room("bob")
        await asyncio.to_thread(hub.close)

    asyncio.run(crowd())


def test_many_changes_at_once_are_one_event(services: Any) -> None:
    from fleet.events_state import Device, State

    before = read(services, labels=False)
    one = Device(online=True, revoked=False, hardware_class="", agent_version="", configuration=0)
    devices = {f"cam-{n}": one for n in range(300)}
    after = State(devices=devices, rollouts={}, alerts={}, health=before.health, labels={})
    events = list(between(before, after))
    assert [(e.type, e.data) for e in events] == [("devices", {"changed": 300})]
    assert MAX_DEVICES > 10_000


def test_a_fleet_that_stops_ends_its_streams(make: Any, listening: Any, tmp_path: Path) -> None:
    services = make(tmp_path / "fleet")
    fleet, end = listening(services)
    with streaming(fleet) as stream:
        stream.next("resync")
        end()
        with pytest.raises(AssertionError, match="ended"):  # and not: cut in the middle
            stream.next()
    services.database.close()
