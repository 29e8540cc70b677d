"""Only what was signed is installed: a real fleet, a real agent, and who took the fleet over."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_sync.messages import DesiredModel, DesiredState, decode, encode
from cloud_sync.release import Release
from cloud_sync.trust import PayloadType, key_id, load_key, open_envelope, sign
from edge_agent.update.journal import read_state
from edgeml.errors import TrustError
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until

pytestmark = pytest.mark.e2e
DEVICE = "cam-1"


class SignedLoop(Loop):
    """A loop whose releases are signed by a key that the fleet does not hold."""

    def command(self, *arguments: str) -> None:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr

    @property
    def there(self) -> tuple[str, ...]:
        url = f"http://127.0.0.1:{self.ports[0]}"
        return ("--fleet", url, "--data", str(self.folder / "fleet"))

    def take_targets_offline(self) -> None:
        self.command("trust", "make-key", str(self.folder / "dora.key"))
        public = str(self.folder / "dora.pub")
        self.command("trust", "rotate", "targets", "--to", public, *self.there)
        self.sign("first")

    def sign(self, stick_name: str) -> None:
        """Carry all that waits to the key, and its signatures back."""
        key, stick = str(self.folder / "dora.key"), str(self.folder / stick_name)
        self.command("trust", "export", stick, *self.there)
        self.command("trust", "sign", stick, "--key", key, "--yes")
        self.command("trust", "publish", stick, *self.there)

    def push(self, version: str, *, signed: bool) -> Release:
        layout, release = make_release(self.folder / version, version, seed=int(version[0]))
        key = ("--sign-key", str(self.folder / "dora.key")) if signed else ()
        self.command("releases", "push", str(layout.folder), *key, *self.there)
        return release

    def want_as_a_thief(self, release: Release) -> None:
        """What whoever took the fleet over can do: they have its database and its director's key.

        The fleet is down meanwhile.
        """
        director = load_key(self.folder / "fleet" / "keys" / "director.key")
        keys = {key_id(director.public_key()): director.public_key()}
        database = sqlite3.connect(self.folder / "fleet" / "fleet.db")
        with database:
            [envelope] = database.execute(
                "SELECT envelope FROM desired_states WHERE device = ?", [DEVICE]
            ).fetchone()
            before = decode(open_envelope(envelope, keys, PayloadType.DESIRED), DesiredState)
            wanted = DesiredModel(
                release=release.digest,
                variant=release.variants[0].digest,
                release_version=release.version,
            )
            state = msgspec.structs.replace(
                before, counter=before.counter + 1, models={"toy": wanted}
            )
            database.execute(
                "UPDATE desired_states SET envelope = ?, counter = ? WHERE device = ?",
                [sign(encode(state), PayloadType.DESIRED, director), state.counter, DEVICE],
            )
        database.close()

    def toy(self) -> dict[str, Any]:
        reported = self.client.device(DEVICE)["reported"] or {}
        found: dict[str, Any] = reported.get("models", {}).get("toy", {})
        return found


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[SignedLoop]:
    made = SignedLoop(tmp_path)
    made.start_fleet()
    made.take_targets_offline()
    made.enroll(DEVICE)
    yield made
    made.close()


def test_a_device_refuses_what_nobody_signed_whoever_wants_it_and_the_fleet_hears_of_it(
    loop: SignedLoop,
) -> None:
    loop.start_agent(DEVICE)
    loop.push("1.0.0", signed=True)
    ended = loop.finished(loop.roll_out("1.0.0"))
    assert ended["status"] == "completed", ended["sentence"]
    assert (loop.folder / DEVICE / "trust" / "metadata" / "timestamp.json").exists()

    unsigned = loop.push("6.6.6", signed=False)
    with pytest.raises(TrustError, match="Nobody who may sign it has"):
        loop.roll_out("6.6.6")
    loop.kill("fleet")
    loop.want_as_a_thief(unsigned)
    loop.start_fleet()
    refused = until("the refusal", lambda: loop.toy().get("phase") == "refused" and loop.toy())
    assert refused["release"] == unsigned.digest
    assert "Nobody who may sign it has" in refused["reason"]
    assert refused["running_version"] == "1.0.0"
    model = unsigned.variants[0].file("model").digest.removeprefix("sha256:")
    assert not list((loop.folder / DEVICE / "releases").rglob(f"*{model}*"))

    [event] = until("the security event", loop.client.security_events)
    assert (event["device"], event["kind"]) == (DEVICE, "untrusted-release")
    assert "toy:6.6.6" in event["detail"]
    told = loop.run("fleet", "security", *loop.there)
    assert "untrusted-release" in told.stdout
    assert "toy:6.6.6" in told.stdout
    assert loop.client.health()["counters"]["security.untrusted-release"] == 1

    loop.sign("second")
    ended = loop.finished(loop.roll_out("6.6.6"))
    assert ended["status"] == "completed", ended["sentence"]

    # The installed release needs nobody's word any more.
    loop.kill(DEVICE)
    loop.kill("fleet")
    for path in (loop.folder / DEVICE / "trust").rglob("*.json"):
        path.unlink()
    results = loop.folder / DEVICE / "results.jsonl"
    seen = len(results.read_text().splitlines())
    loop.start_agent(DEVICE)
    until("frames, offline", lambda: len(results.read_text().splitlines()) > seen + 20)
    state = read_state(loop.folder / DEVICE / "state.json").models["toy"]
    assert state.running is not None
    assert state.running.release_version == "6.6.6"
