"""The director's key and the CA rotate with overlap: a real fleet, and devices that follow it.

The devices are the agent's own `Director`, over the fleet's real listener.
"""

import datetime as dt
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner

from cloud_sync.device_api import DeviceClient
from cloud_sync.messages import DesiredState, Hello, SecurityRecord, decode, encode
from cloud_sync.trust import PayloadType, generate, key_id, open_envelope, sign
from cloud_sync.trust.identity import is_issued_by, make_ca
from cloud_sync.trust.keys import public_pem, split_pems
from edge_agent.trust import director as directors
from edge_agent.trust.director import Director, UnknownKeyError
from edge_agent.trust.identity import enroll_device, load_identity
from edge_agent.trust.release_trust import ReleaseCheck
from edge_agent.update.journal import DeviceState
from edgeml.errors import RemoteError, TrustError, UserError
from fleet.keys import load_or_create
from fleet.options import ExternalBroker
from fleet.server import broker_ca
from fleet.trust.changes import RoleKeys
from hardware.probes import probe


class Device:
    """An enrolled device: its director, its journalled state, and what it told the fleet."""

    def __init__(self, fleet: Any, folder: Path, name: str = "cam-1") -> None:
        self.name, self.fleet, self.state = name, fleet, DeviceState()
        self.told: list[SecurityRecord] = []
        self.opened: list[Any] = []
        token = fleet.client.enroll(name, {}, 60.0)["token"]
        self.config = enroll_device(fleet.devices, name, token, folder)
        self.wake()

    def wake(self) -> None:
        """Begin a new run of the agent."""
        self.close()
        identity = load_identity(self.config)
        self.client = DeviceClient(self.fleet.devices, self.name, identity.key)
        check = ReleaseCheck(identity, lambda: self.client.auth, self.proven, self.told.append)
        self.opened = [self.client, check]
        self.director = Director(identity, lambda: self.state, check.ready, self.told.append)

    def proven(self) -> float:
        return self.director.clock.floor()

    def take(self, envelope: bytes | None = None) -> DesiredState:
        """Accept what the fleet wants now, or an envelope, as the agent does."""
        found = envelope or self.client.desired()
        assert found is not None
        accepted = self.director.accept(found, asked=True)
        self.state = DeviceState(
            accepted=found.decode(), epoch=accepted.epoch, counter=accepted.counter
        )
        return accepted

    def follow(self) -> None:
        self.director.follow(self.client)

    def close(self) -> None:
        for opened in self.opened:
            opened.close()


@pytest.fixture
def signing(fleet: Any) -> Any:
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    return fleet


@pytest.fixture
def make(fleet: Any, tmp_path: Path) -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def new(name: str = "cam-1") -> Device:
        made.append(Device(fleet, tmp_path / name, name))
        return made[-1]

    yield new
    for device in made:
        device.close()


def configure(fleet: Any, every_s: float, device: str = "cam-1") -> None:
    fleet.client.configure(device, {"telemetry_every_s": every_s})


def test_a_rotated_key_is_followed_and_the_one_before_is_good_until_it_is_withdrawn(
    signing: Any, make: Any
) -> None:
    device = make()
    configure(signing, 1.0)
    before = device.take()
    by_the_old = device.state.accepted.encode()
    old = signing.services.keys.director
    signing.client.trust_rotate_key("director", "a test")
    assert key_id(old.public_key()) != signing.services.keys.director_id
    with pytest.raises(UnknownKeyError):
        device.take()
    device.follow()
    assert device.director.learned()
    assert device.take() == as_issued_now(before, device)
    # In the overlap, what the old key signs is taken, too.
    assert open_envelope(by_the_old, device.director.keys, PayloadType.DESIRED)
    signing.client.trust_withdraw_key("director", "stolen")
    device.follow()
    with pytest.raises(TrustError):
        open_envelope(by_the_old, device.director.keys, PayloadType.DESIRED)
    assert not device.told


def as_issued_now(before: DesiredState, device: Device) -> DesiredState:
    """The same state under the version and times of the one that the device holds now."""
    now = decode(
        open_envelope(device.state.accepted.encode(), device.director.keys, PayloadType.DESIRED),
        DesiredState,
    )
    return msgspec.structs.replace(
        before, counter=now.counter, issued_at=now.issued_at, expires_at=now.expires_at
    )


def test_a_device_that_was_away_across_two_rotations_and_withdrawals_recovers(
    signing: Any, make: Any
) -> None:
    device = make()
    configure(signing, 1.0)
    device.take()
    for _ in range(2):
        signing.client.trust_rotate_key("director")
        signing.client.trust_withdraw_key("director")
    configure(signing, 2.0)
    device.wake()
    with pytest.raises(UnknownKeyError):
        device.take()
    device.follow()
    assert device.take().configuration.telemetry_every_s == 2.0
    device.wake()  # what it learned lasts
    assert list(device.director.keys) == [signing.services.keys.director_id]


def test_a_thief_of_the_old_key_is_refused_after_the_withdrawal_and_keeps_no_device(
    signing: Any, make: Any
) -> None:
    device = make()
    configure(signing, 1.0)
    honest = device.take()
    stolen = signing.services.keys.director
    far = msgspec.structs.replace(honest, epoch=10**6, counter=10**6)
    device.take(sign(encode(far), PayloadType.DESIRED, stolen))
    signing.client.trust_rotate_key("director", "stolen")
    signing.client.trust_withdraw_key("director", "stolen")
    device.follow()
    # No version that the thief signed keeps the honest ones out, and no further one comes in.
    assert device.take().epoch == honest.epoch
    further = msgspec.structs.replace(far, counter=10**6 + 1)
    with pytest.raises(UnknownKeyError):
        device.take(sign(encode(further), PayloadType.DESIRED, stolen))
    device.follow()
    assert [record.kind for record in device.told] == ["refused-state"]
    assert "forged" in device.told[0].detail


def test_with_targets_offline_the_new_key_signs_only_once_it_is_announced(
    fleet: Any, make: Any
) -> None:
    dora = generate()
    targets = RoleKeys(keys={"dora": public_pem(dora.public_key())})
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    fleet.client.trust_rotate("targets", targets)
    sign_waiting(fleet, dora)
    device = make()
    before = fleet.services.keys.director_id
    info = fleet.client.trust_rotate_key("director")
    assert "_fleet/director.pem" in str(info["waiting"])
    configure(fleet, 1.0)
    device.take()
    assert fleet.services.keys.director_id == before
    with pytest.raises(UserError, match="is being rotated already"):
        fleet.client.trust_rotate_key("director")
    sign_waiting(fleet, dora)
    assert fleet.services.keys.director_id != before
    configure(fleet, 2.0)
    device.follow()
    assert device.take().configuration.telemetry_every_s == 2.0


def test_a_rotation_that_is_discarded_leaves_the_key_as_it_was(fleet: Any) -> None:
    dora = generate()
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    fleet.client.trust_rotate("targets", RoleKeys(keys={"d": public_pem(dora.public_key())}))
    sign_waiting(fleet, dora)
    before = fleet.services.keys.director_id
    fleet.client.trust_rotate_key("director")
    fleet.client.trust_discard()
    assert fleet.services.keys.director_id == before
    assert fleet.services.keys.directors.coming is None
    fleet.client.trust_rotate_key("director")


def test_without_a_root_nothing_rotates(fleet: Any) -> None:
    with pytest.raises(UserError, match="edgeml trust init"):
        fleet.client.trust_rotate_key("director")
    with pytest.raises(UserError, match="to withdraw"):
        fleet.client.trust_withdraw_key("director")


def test_a_device_of_before_the_root_takes_it_without_enrolling_again(
    fleet: Any, make: Any
) -> None:
    device, away = make(), make("cam-2")
    assert device.director.root is None
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    device.follow()
    assert device.director.root is not None
    # Another one was away until the director had rotated, too: the key that it knows said it once.
    fleet.client.trust_rotate_key("director")
    fleet.client.trust_withdraw_key("director")
    away.follow()
    assert list(away.director.keys) == [fleet.services.keys.director_id]
    away.wake()
    assert away.director.root is not None


def test_the_ca_rotates_and_devices_renew_before_the_old_one_goes(signing: Any, make: Any) -> None:
    device, late = make(), make("cam-2")
    old = signing.services.keys.ca
    signing.client.trust_rotate_key("ca")
    new = signing.services.keys.ca
    lists = signing.services.keys.folder / "crl.pem"
    assert lists.read_text().count("BEGIN X509 CRL") == len([old, new])
    assert split_pems(device.director.identity.authorities) == [old]
    device.follow()
    assert split_pems(device.director.identity.authorities) == [old, new]
    renewed = device.director.turn(device.client)
    assert renewed is not None
    assert is_issued_by(renewed.certificate, new)
    with pytest.raises(UserError, match=r"1 devices have not renewed.*cam-2"):
        signing.client.trust_withdraw_key("ca")
    with pytest.raises(UserError, match="The one before is still good"):
        signing.client.trust_rotate_key("ca")
    late.follow()
    late.director.turn(late.client)
    signing.client.trust_withdraw_key("ca")
    device.follow()
    assert split_pems(device.director.identity.authorities) == [new]
    bundle = signing.services.keys.folder / "authorities.pem"
    assert bundle.read_text() == new


def test_a_device_that_says_hello_hears_of_a_rotation_and_need_not_wait_for_its_hour(
    signing: Any, make: Any
) -> None:
    device = make()
    device.follow()
    device.director.turn(device.client)
    old, now = device.director.identity.authorities, time.monotonic()
    signing.client.trust_rotate_key("ca")
    assert device.director.turn(device.client) is None
    assert device.director.identity.authorities == old
    device.client.hello(hello_of(device))
    device.director.hinted(device.client.keys)
    device.director._monotonic = lambda: now + directors.HINTED_S + 60.0
    renewed = device.director.turn(device.client)
    assert renewed is not None
    assert is_issued_by(renewed.certificate, signing.services.keys.ca)
    asked = device.director._next_keys
    device.client.hello(hello_of(device))
    device.director.hinted(device.client.keys)
    assert device.director._next_keys == asked, "it knows all that there is"


def hello_of(device: Device) -> Hello:
    return Hello(
        device=device.name,
        agent_version="1",
        boot_id="boot-1",
        counter=time.monotonic_ns(),
        stream="stream-1",
        capabilities=probe(),
        reported=device.state.reported(),
        accepted=device.state.accepted,
    )


def test_a_renewal_tells_where_the_broker_is_now(signing: Any, make: Any) -> None:
    device = make()
    before = device.director.identity.mqtt
    object.__setattr__(signing.services, "mqtt_url", "mqtts://broker.example:8883")
    signing.client.trust_rotate_key("ca")
    device.follow()
    told = device.director.turn(device.client).mqtt
    assert told.url == "mqtts://broker.example:8883" != before.url
    assert told.password == before.password != ""
    device.wake()
    assert device.director.identity.mqtt == told


def test_a_broker_that_the_fleets_own_ca_vouches_for_is_trusted_through_its_rotation(
    signing: Any, make: Any, tmp_path: Path
) -> None:
    named = tmp_path / "authorities.pem"  # as `edgeml fleet broker-config` writes it
    named.write_text(signing.services.keys.authorities)
    external = ExternalBroker("mqtts://broker.example:8883", ca=named)
    ca = broker_ca(external, signing.services.keys.authorities)
    object.__setattr__(signing.services, "mqtt_ca", ca)
    device = make()
    signing.client.trust_rotate_key("ca")
    device.follow()
    trusted, *_ = device.director.identity.tls_files
    assert trusted.read_text() == signing.services.keys.authorities
    named.write_text(make_ca(generate(), dt.datetime.now(dt.UTC)))
    assert broker_ca(external, signing.services.keys.authorities) == named.read_text()


@pytest.mark.parametrize("step", ["announced", "half-promoted", "key-moved"])
def test_a_crash_in_a_rotation_is_mended_at_the_next_start(
    services: Any, tmp_path: Path, step: str
) -> None:
    data = tmp_path / "copy"
    shutil.copytree(services.keys.folder.parent, data)
    now = dt.datetime.now(dt.UTC)
    ring = load_or_create(data, now).directors
    before = ring.current.public
    ring.announce()
    assert ring.coming is not None
    coming, folder = ring.coming.public, data / "keys"
    if step != "announced":
        (folder / "director.old.pem").write_text(before)
        (folder / "director.pem").write_text(coming)
    if step == "key-moved":
        (folder / "director.next.key").replace(folder / "director.key")
    found = load_or_create(data, now).directors
    if step == "announced":
        assert (found.current.public, found.coming and found.coming.public) == (before, coming)
        return
    assert (found.current.public, found.coming, found.retired) == (coming, None, (before,))
    assert public_pem(found.current.key.public_key()) == coming


def test_a_forgery_is_asked_for_once_and_then_told(signing: Any, make: Any) -> None:
    device = make()
    configure(signing, 1.0)
    forged = sign(encode(device.take()), PayloadType.DESIRED, generate())
    for _ in range(3):
        with pytest.raises(UnknownKeyError):
            device.director.accept(forged, asked=False)
    assert not device.told
    device.follow()
    assert [record.detail.partition(":")[0] for record in device.told] == ["forged"]


def test_a_refused_state_is_told_once_in_a_while(
    signing: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, other = make(), make("cam-2")
    configure(signing, 1.0)
    configure(signing, 1.0, "cam-2")
    device.take()
    older = device.state.accepted.encode()
    configure(signing, 2.0)
    device.take()
    others = other.client.desired()
    with pytest.raises(TrustError):
        device.director.accept(older, asked=False)
    assert not device.told  # it may have been on its way
    monkeypatch.setattr(directors, "LATE_S", 0.0)
    for envelope in (older, older, others, others):
        with pytest.raises(TrustError):
            device.director.accept(envelope, asked=False)
    assert [r.detail.partition(":")[0] for r in device.told] == ["older", "of another device"]
    monkeypatch.setattr(directors, "TELL_EVERY_S", 0.0)
    with pytest.raises(TrustError):
        device.director.accept(older, asked=False)
    assert len(device.told) == 3


def sign_waiting(fleet: Any, key: Any) -> None:
    """Sign all that waits with a key that the fleet does not hold."""
    signer = CryptoSigner(key)
    for role in fleet.services.trust.store.staged_roles():
        staged = fleet.services.trust.staged(role)
        if staged is not None and signer.public_key.keyid in fleet.services.trust.keys(role):
            staged.sign(signer, append=True)
            found = {signer.public_key.keyid: staged.signatures[signer.public_key.keyid].signature}
            fleet.client.trust_signatures(role, found)


def test_a_device_without_a_network_learns_a_rotated_key_from_what_came_on_a_stick(
    signing: Any, make: Any, tmp_path: Path
) -> None:
    device = make()
    configure(signing, 1.0)
    device.take()
    signing.client.trust_rotate_key("director", "a test")
    configure(signing, 2.0)
    envelope = device.client.desired()
    stick = tmp_path / "stick"
    shutil.copytree(signing.services.trust.store.folder / "metadata", stick / "metadata")

    def brought() -> DesiredState:
        check = device.opened[1]
        found: DesiredState = device.director.brought(envelope, partial(check.brought, stick))
        return found

    with pytest.raises(RemoteError, match="cannot be fetched"):
        brought()
    assert not device.told
    shutil.copytree(signing.services.trust.store.folder / "targets", stick / "targets")
    assert brought().counter > device.state.counter
    assert signing.services.keys.director_id in load_identity(device.config).director_keys
    assert not device.told
