"""A real fleet and a device's trust over its listener: enrolled, asked, refused, audited."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from securesystemslib.signer import CryptoSigner

from cloud_sync.address import http_client
from cloud_sync.device_api import DeviceAuth
from cloud_sync.release import Layout
from cloud_sync.trust import generate, key_id
from cloud_sync.trust.fetcher import HttpxFetcher
from cloud_sync.trust.keys import public_pem
from cloud_sync.trust.releases import ReleaseTrust
from edgeml.errors import RemoteError, TrustError, UserError
from fleet.services import Caller, Services, trust
from fleet.services.trust import require_signed
from fleet.trust.changes import RoleKeys

TIMEOUT = httpx.Timeout(5.0)
OPERATOR = Caller("operator", "a test")


@pytest.fixture
def trust_of(tmp_path: Path) -> Iterator[Callable[[Any], ReleaseTrust]]:
    """What an enrolled device of the fixture `make_device` trusts."""
    opened: list[httpx.Client] = []

    def make(device: Any) -> ReleaseTrust:
        auth = DeviceAuth(device.device, device.key)
        client = http_client(device.base_url, auth, TIMEOUT, of="fleet")
        opened.append(client)
        return ReleaseTrust(
            tmp_path / f"trust-{device.device}",
            device.enrolled.root.encode(),
            lambda: dt.datetime.now(dt.UTC).timestamp(),
            HttpxFetcher(client),
            f"{device.base_url}/device/v1/trust",
        )

    yield make
    for client in opened:
        client.close()


def test_a_device_takes_what_was_pushed_and_nothing_else(
    fleet: Any, make_device: Any, trust_of: Any, release_folder: Path
) -> None:
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    pushed = fleet.client.push(release_folder)
    assert pushed["trust"] == "signed"
    device = trust_of(make_device())
    device.check("digits", "1.0.0", pushed["digest"])
    with pytest.raises(TrustError):
        device.check("digits", "1.0.0", "sha256:" + "e" * 64)
    with pytest.raises(TrustError):
        device.check("digits", "6.6.6", pushed["digest"])


def test_director_and_authorities_come_under_tuf(
    fleet: Any, make_device: Any, trust_of: Any
) -> None:
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    made = make_device()
    device = trust_of(made)
    director = fleet.services.keys.director.public_key()
    assert list(device.director_keys()) == [key_id(director)]
    assert device.authorities() == made.enrolled.ca


def test_a_fleet_that_signs_nothing_gives_no_root(fleet: Any, make_device: Any) -> None:
    assert make_device().enrolled.root == ""
    assert fleet.client.trust()["state"] == "unsigned"
    assert "not signed" in fleet.client.health()["trust"]


def test_strangers_are_not_served(fleet: Any) -> None:
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    with closing(http_client(fleet.devices, None, TIMEOUT, of="fleet")) as client:
        answer = client.get("/device/v1/trust/metadata/timestamp.json")
    assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_what_the_listener_lacks_is_asked_for_again(
    fleet: Any, make_device: Any, trust_of: Any
) -> None:
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    device = trust_of(make_device())
    (fleet.services.trust.store.folder / "metadata" / "timestamp.json").unlink()
    with pytest.raises(RemoteError, match="404"):
        device.check("digits", "1.0.0", "sha256:" + "a" * 64)


def test_no_rollout_begins_with_a_release_that_is_not_signed(
    fleet: Any, release_folder: Path
) -> None:
    carol = generate()
    targets = RoleKeys(keys={"carol": public_pem(carol.public_key())})
    fleet.client.push(release_folder)
    info = fleet.client.trust_init(RoleKeys(), targets)
    assert info["state"] == "waiting"
    assert "digits:1.0.0" in str(info["waiting"])
    # Nothing is published yet, so nothing is required yet.
    fleet.client.create_rollout("digits", "1.0.0")
    _sign(fleet, carol, "targets")
    assert fleet.client.release("digits", "1.0.0")["trust"] == "signed"
    fleet.client.create_rollout("digits", "1.0.0")


def test_a_release_that_waits_is_refused(
    fleet: Any, release_folder: Path, kit: Any, tmp_path: Path
) -> None:
    carol = generate()
    targets = RoleKeys(keys={"carol": public_pem(carol.public_key())})
    fleet.client.trust_init(RoleKeys(), targets)
    _sign(fleet, carol, "targets")
    assert fleet.client.push(release_folder)["trust"] == "waits for signatures"
    # Pushed again, it is not signed by that.
    assert fleet.client.push(release_folder)["trust"] == "waits for signatures"
    with pytest.raises(TrustError, match="Nobody who may sign it has"):
        fleet.client.create_rollout("digits", "1.0.0")
    assert fleet.client.rollouts() == []
    _sign(fleet, carol, "targets")
    fleet.client.create_rollout("digits", "1.0.0")


def test_every_change_of_trust_is_in_the_audit_log(fleet: Any, release_folder: Path) -> None:
    client, key = fleet.client, public_pem(generate().public_key())
    client.trust_init(RoleKeys(), RoleKeys(), "we begin")
    client.push(release_folder, reason="1.0.0 is good")
    client.trust_rotate("timestamp", RoleKeys(), "stolen")
    client.trust_add_key("targets", RoleKeys(keys={"bob": key}), "a deputy")
    client.trust_delegate("vision", ["faces"], RoleKeys(), "a team")
    client.trust_refresh("targets", "yearly")
    client.trust_rotate("root", RoleKeys(keys={"bob": key}), "offline")
    client.trust_discard("not yet")
    told = [(e["action"], e["subject"], e["reason"]) for e in reversed(client.audit())]
    assert [entry for entry in told if entry[0].startswith("trust.")] == [
        ("trust.init", "root", "we begin"),
        ("trust.release", "digits:1.0.0", "1.0.0 is good"),
        ("trust.rotate", "timestamp", "stolen"),
        ("trust.add-key", "targets", "a deputy"),
        ("trust.delegate", "vision", "a team"),
        ("trust.refresh", "targets", "yearly"),
        ("trust.rotate", "root", "offline"),
        ("trust.discard", "root", "not yet"),
    ]
    client.verify_audit()


def test_a_change_that_is_refused_is_not_in_the_audit_log(fleet: Any) -> None:
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    before = len(fleet.client.audit())
    with pytest.raises(UserError):
        fleet.client.trust_rotate("nobody", RoleKeys())
    assert len(fleet.client.audit()) == before


def test_director_and_authorities_are_signed_once_at_the_first_start(services: Services) -> None:
    trust.begin(services, fresh=True)
    signed = services.trust.published("targets").signed.targets
    assert set(signed) == {"_fleet/director.pem", "_fleet/ca.pem"}
    before = services.trust.published("targets").signed.version
    trust.begin(services, fresh=False)
    assert services.trust.published("targets").signed.version == before


def test_a_fleet_that_is_up_keeps_fresh_what_it_signed(
    services: Services, clock: Any, release_folder: Path
) -> None:
    trust.begin(services, fresh=True)
    release = Layout.open(release_folder).release(None)
    trust.sign_release(services, OPERATOR, release)
    for _ in range(3):
        clock.now += 86400.0
        with pytest.raises(TrustError, match="expired"):
            require_signed(services, "digits", "1.0.0", release.digest)
        trust.keep_fresh(services)
        require_signed(services, "digits", "1.0.0", release.digest)


def test_an_old_fleet_stays_as_it_is_until_somebody_says_so(services: Services) -> None:
    trust.begin(services, fresh=False)
    assert not services.trust.is_initialised
    require_signed(services, "digits", "1.0.0", "sha256:" + "a" * 64)


def test_the_pushed_release_is_the_target(fleet: Any, release_folder: Path) -> None:
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    release = Layout.open(release_folder).release(None)
    fleet.client.push(release_folder)
    target = fleet.services.trust.published("targets").signed.targets["digits/1.0.0"]
    assert (f"sha256:{target.hashes['sha256']}", target.length) == (release.digest, release.size)


def _sign(fleet: Any, key: Any, role: str) -> None:
    signer = CryptoSigner(key)
    staged = fleet.services.trust.staged(role)
    signature = signer.sign(staged.signed_bytes).signature
    fleet.client.trust_signatures(role, {signer.public_key.keyid: signature})
