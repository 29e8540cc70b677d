"""What agents of released versions have sent up, played to the fleet of today.

An agent one version newer is played by the same messages with fields that nobody knows yet.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from cloud_sync.messages import Up, topic
from cloud_sync.trust import PayloadType
from cloud_sync.trust.device_token import make_token
from tests.e2e.loop import until
from tests.recorded import Exchange, Recording, versions, with_more

Change = Callable[[Any], Any]
BATCHES = (Up.STATE, Up.TELEMETRY, Up.EVIDENCE, Up.RESULT)


class Player:
    """An agent of a version, with the key of its recording, that says again what it said."""

    def __init__(self, fleet: Any, version: str) -> None:
        self.recording = Recording(version)
        self.fleet = fleet
        self.http = httpx.Client(base_url=fleet.devices, timeout=60)
        self.token = ""
        self.enroll()

    def enroll(self) -> None:
        """Enrol with the recorded request; only the token is of today."""
        [recorded] = [e for e in self.recording.exchanges if e.path.endswith("/enroll")]
        token = self.fleet.client.enroll(self.recording.device, {}, 600)["token"]
        body = json.dumps(json.loads(recorded.body) | {"token": token})
        answer = self.http.post(recorded.path, content=body)
        assert answer.status_code == recorded.status, answer.text
        assert missing(json.loads(recorded.answer), answer.json()) == []

    def ask(self, method: str, path: str, body: bytes) -> httpx.Response:
        """A request with this device's token, as `DeviceAuth` makes it."""
        answer = self.http.request(
            method, path, content=body, headers={"Authorization": self.token}
        )
        if answer.status_code != 401:
            return answer
        challenge = answer.headers["WWW-Authenticate"].partition('challenge="')[2].rstrip('"')
        self.token = make_token(self.recording.device, challenge, self.recording.key)
        return self.http.request(method, path, content=body, headers={"Authorization": self.token})

    def publish(self, name: Up, payload: bytes) -> None:
        """What comes over the bus."""
        self.fleet.ingest.on_message(topic(self.recording.device, name), payload)

    def play(self, change: Change) -> int:
        """All that it published; the number of records in it."""
        records = set[int]()
        for name, payload in self.recording.messages:
            kind = PayloadType.HELLO if name == Up.HELLO else PayloadType.BATCH
            if name == Up.HELLO:
                self.publish(Up.HELLO, self.recording.changed(payload, kind, change))
            elif name in BATCHES:
                said = change(self.recording.said(payload, kind))
                records |= {record["seq"] for record in said["records"]}
                self.publish(Up(name), self.recording.changed(payload, kind, change))
        return len(records)


@pytest.fixture
def player(fleet: Any, request: pytest.FixtureRequest) -> Iterator[Player]:
    made = Player(fleet, request.param)
    yield made
    made.http.close()


each_version = pytest.mark.parametrize("player", versions(), indirect=True)


def missing(recorded: Any, answered: Any, at: str = "") -> list[str]:
    """What the answer of that time had and this one has not, or has as another type."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        return [
            found
            for key, value in recorded.items()
            for found in (
                missing(value, answered[key], f"{at}.{key}") if key in answered else [f"{at}.{key}"]
            )
        ]
    return [] if isinstance(answered, type(recorded)) else [at]


@each_version
@pytest.mark.parametrize("change", [lambda said: said, with_more], ids=["same", "newer"])
def test_all_that_it_published_is_stored(player: Player, change: Change) -> None:
    services, device = player.fleet.services, player.recording.device
    number = player.play(change)
    assert number > 10
    until("all records", lambda: services.counters.all().get("ingest.records", 0) >= number)
    counted = services.counters.all()
    assert not {name: n for name, n in counted.items() if name.startswith("security.")}
    for name in ("ingest.refused", "ingest.malformed", "ingest.faults"):
        assert not counted.get(name), (name, counted)
    info = player.fleet.client.device(device)
    hello = player.recording.said(player.recording.on(Up.HELLO)[-1], PayloadType.HELLO)
    assert info["agent_version"] == hello["agent_version"]
    assert info["hardware_class"] == hello["capabilities"]["hardware_class"]
    assert info["reported"]["models"]["toy"]["running_version"] == "1.0.0"


@each_version
def test_what_it_asked_over_https_is_answered_as_then(player: Player) -> None:
    asked = 0
    for recorded in player.recording.exchanges:
        if recorded.status == 401 or not repeatable(recorded):
            continue
        answer = player.ask(recorded.method, recorded.path, recorded.body)
        # What is wanted of it, and what waits for it, is not what it was then.
        assert answer.status_code == recorded.status or recorded.path.endswith("/hello"), (
            answer.text
        )
        assert answer.status_code < 300
        if recorded.status == answer.status_code == 200 and "json" in recorded.type:
            assert missing(json.loads(recorded.answer), answer.json()) == []
        asked += 1
    assert asked >= 3


def repeatable(recorded: Exchange) -> bool:
    """Whether it can be asked of another fleet: its own releases and signatures it has not."""
    return recorded.path.startswith("/device/v1/") and not recorded.path.startswith(
        ("/device/v1/enroll", "/device/v1/trust/")
    )


@each_version
def test_a_kind_of_record_that_is_not_known_yet_is_kept_and_acknowledged(player: Player) -> None:
    def novel(said: Any) -> Any:
        return said | {"records": [record | {"kind": "novelty"} for record in said["records"]]}

    payload = player.recording.on(Up.TELEMETRY)[0]
    body = player.recording.changed(payload, PayloadType.BATCH, novel)
    answer = player.ask("POST", "/device/v1/records", body)
    assert answer.status_code == 200, answer.text
    assert player.fleet.services.counters.all()["ingest.malformed"] >= 1


@each_version
@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("/device/v1/hello", Up.HELLO, PayloadType.HELLO),
        ("/device/v1/records", Up.STATE, PayloadType.BATCH),
    ],
)
def test_another_major_version_is_refused_with_a_reason(
    player: Player, path: str, name: Up, kind: PayloadType
) -> None:
    payload = player.recording.on(name)[0]
    other = player.recording.changed(payload, kind, lambda said: said | {"version": 2})
    answer = player.ask("POST", path, other)
    assert answer.status_code >= 400
    assert "version 2 was refused" in answer.text
    assert "speaks version 1" in answer.text
    player.publish(name, other)
    until("the refusal", lambda: player.fleet.services.counters.all().get("ingest.refused"))
