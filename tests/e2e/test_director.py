"""The director's key rotates under a running fleet, and what is forged is refused and shown."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cloud_sync.evidence import Evidence, Verification
from cloud_sync.messages import Batch, MqttAccess, Record, RecordKind, Up, encode, topic
from cloud_sync.mqtt_session import MqttSession, require
from cloud_sync.trust import PayloadType, generate, key_id, load_key, sign
from edge_agent.trust.identity import load_identity
from edge_agent.update.journal import read_state
from tests.e2e.loop import DEADLINE_S, Loop, until

pytestmark = pytest.mark.e2e
DEVICE = "cam-1"


class TrustLoop(Loop):
    """A loop whose operator uses the command line."""

    @property
    def there(self) -> tuple[str, ...]:
        url = f"http://127.0.0.1:{self.ports[0]}"
        return ("--fleet", url, "--data", str(self.folder / "fleet"))

    def said(self, *arguments: str) -> str:
        done = self.run(*arguments, *self.there)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def director(self) -> str:
        return key_id(load_key(self.folder / "fleet" / "keys" / "director.key").public_key())

    def known(self) -> set[str]:
        """The directors whose word the device takes."""
        return set(load_identity(self.folder / DEVICE / "agent.toml").director_keys)

    def takes(self, every_s: float) -> None:
        """Configure the device, and wait until it has taken the signed state that says so."""
        self.client.configure(DEVICE, {"telemetry_every_s": every_s})
        journal = self.folder / DEVICE / "state.json"
        until(
            f"the state with {every_s}",
            lambda: read_state(journal).wanted.telemetry_every_s == every_s,
        )

    def forgeries(self) -> int:
        return int(self.client.health()["counters"].get("security.forged-batch", 0))


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[TrustLoop]:
    made = TrustLoop(tmp_path)
    try:
        made.start_fleet()
        made.enroll(DEVICE)
        yield made
    finally:
        made.close()


def test_a_device_follows_a_rotated_director_and_one_that_was_away_does_too(
    loop: TrustLoop,
) -> None:
    loop.start_agent(DEVICE)
    loop.takes(1.5)
    first = loop.director()
    assert loop.known() == {first}

    loop.said("trust", "rotate-key", "director", "--why", "a test")
    second = loop.director()
    assert second != first
    loop.takes(2.0)
    assert second in loop.known()

    loop.stop(DEVICE)
    loop.said("trust", "withdraw-key", "director", "--why", "a test")
    loop.said("trust", "rotate-key", "director", "--why", "a test")
    loop.said("trust", "withdraw-key", "director", "--why", "a test")
    loop.start_agent(DEVICE)
    loop.takes(3.0)  # by a key that it never met
    assert loop.known() == {loop.director()}
    assert loop.client.security_events() == []


def test_forged_evidence_is_refused_and_shown(loop: TrustLoop) -> None:
    # Who has the device's broker account and not its key, as from a log or a backup.
    access = msgspec.json.decode(
        (loop.folder / DEVICE / "identity" / "mqtt.json").read_bytes(), type=MqttAccess
    )
    session = MqttSession(
        access.url, DEVICE, username=DEVICE, password=access.password, on_message=_ignore
    )
    session.start()
    try:
        require(session, DEADLINE_S)
        batch = Batch(device=DEVICE, boot_id="thief", stream="stolen", records=(_evidence(),))
        forged = sign(encode(batch), PayloadType.BATCH, generate())
        assert session.publish(topic(DEVICE, Up.EVIDENCE), forged)
        until("the refusal", loop.forgeries)
    finally:
        session.close()
    said = loop.said("fleet", "security")
    assert DEVICE in said
    assert "forged-batch" in said
    [event] = json.loads(loop.said("fleet", "security", "--json"))
    assert (event["device"], event["kind"]) == (DEVICE, "forged-batch")


def _evidence() -> Record:
    said = Evidence(
        stage="trial", model="toy", device=DEVICE, verification=Verification.DEVICE_EXECUTED
    )
    body = msgspec.Raw(msgspec.json.encode(said))
    return Record(seq=1, kind=RecordKind.EVIDENCE, at=None, monotonic=1.0, body=body)


def _ignore(_topic: str, _payload: bytes) -> None:
    """Nothing is expected."""
