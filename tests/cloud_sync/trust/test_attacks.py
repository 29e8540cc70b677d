"""Every attack that TUF's specification names, against a device, on each way that it may fetch.

`docs/trust.md` has the table; `test_docs.py` holds the two together.
"""

import copy
import time
from collections.abc import Iterable

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from cloud_sync.trust import generate
from cloud_sync.trust.keys import public_pem
from cloud_sync.trust.releases import DIRECTOR
from edgeml.errors import RemoteError, TrustError
from tests.cloud_sync.trust.conftest import Device
from tests.cloud_sync.trust.simulator import NOW, RepositorySimulator, at, dripping, endless

V1, V2, EVIL = (f"sha256:{letter * 64}" for letter in "abe")
TOP = (Timestamp.type, Snapshot.type, Targets.type)


def released(sim: RepositorySimulator, version: str, digest: str) -> None:
    sim.sign(f"digits/{version}", digest)
    sim.publish(Targets.type)


def refused(device: Device, why: str, version: str = "1.0.0", digest: str = V1) -> None:
    """The device refuses, and what it holds is as good as before."""
    with pytest.raises(TrustError) as error:
        device.trust.check("digits", version, digest)
    assert why in error.value.why, error.value


@pytest.fixture
def known(device: Device) -> Device:
    """A device that has seen the release 1.0.0 and trusts it."""
    released(device.sim, "1.0.0", V1)
    device.trust.check("digits", "1.0.0", V1)
    return device


def test_a_signed_release_is_taken(known: Device) -> None:
    released(known.sim, "2.0.0", V2)
    known.trust.check("digits", "2.0.0", V2)
    known.trust.check("digits", "1.0.0", V1)


def test_arbitrary_release_is_refused(known: Device) -> None:
    refused(known, "Nobody who may sign it", "9.9.9", EVIL)


def test_another_digest_under_a_signed_name_is_refused(known: Device) -> None:
    refused(known, "Signed is", "1.0.0", EVIL)


def test_swapped_director_key_is_refused(device: Device) -> None:
    ours, theirs = (public_pem(generate().public_key()).encode() for _ in range(2))
    device.sim.put(DIRECTOR, ours)
    device.sim.publish(Targets.type)
    (name,) = device.sim.contents
    device.sim.contents[name] = theirs
    with pytest.raises(TrustError) as error:
        device.trust.director_keys()
    assert "not what the signed list says" in error.value.why
    device.sim.contents[name] = ours
    assert [public_pem(key).encode() for key in device.trust.director_keys().values()] == [ours]


def test_rollback_of_the_timestamp_is_refused(known: Device) -> None:
    known.sim.timestamp.version -= 1
    known.sim.publish_timestamp()
    refused(known, "not the version that must follow")


def test_rollback_of_the_snapshot_is_refused(known: Device) -> None:
    known.sim.snapshot.version -= 1
    known.sim.timestamp.version += 1
    known.sim.publish()
    refused(known, "not the version that must follow")


def test_rollback_of_the_signed_list_is_refused(known: Device) -> None:
    known.sim.targets.version -= 1
    known.sim.snapshot.version += 1
    known.sim.timestamp.version += 1
    known.sim.publish()
    refused(known, "not the version that must follow")


def test_a_list_that_vanishes_is_refused(known: Device) -> None:
    known.sim.delegate("vision", "faces/*")
    known.sim.publish(Targets.type)
    known.trust.check("digits", "1.0.0", V1)
    del known.sim.delegates["vision"], known.sim.snapshot.meta["vision.json"]
    known.sim.publish(Targets.type)
    refused(known, "missing info")


@pytest.mark.parametrize("role", [Timestamp.type, Snapshot.type, Targets.type, Root.type])
def test_freeze_is_noticed_when_what_is_held_back_expires(device: Device, role: str) -> None:
    released(device.sim, "1.0.0", V1)
    for other in (device.sim.timestamp, device.sim.snapshot, device.sim.targets, device.sim.root):
        other.expires = at(NOW + 1000.0)
    getattr(device.sim, role).expires = at(NOW + 10.0)
    device.sim.publish_root()
    device.sim.publish()
    device.trust.check("digits", "1.0.0", V1)
    device.clock.now = NOW + 20.0
    refused(device, "It has expired")


def test_freeze_is_judged_by_the_proven_time_and_not_by_the_wall_clock(known: Device) -> None:
    # By this machine's clock all of it has expired years ago, and `known` was taken.
    assert time.time() > NOW + 86400.0
    in_100_years = time.time() + 100 * 365 * 86400.0
    for each in (known.sim.timestamp, known.sim.snapshot, known.sim.targets, known.sim.root):
        each.expires = at(in_100_years)
    known.sim.publish_root()
    released(known.sim, "2.0.0", V2)
    known.trust.check("digits", "2.0.0", V2)
    known.clock.now = in_100_years + 1.0
    refused(known, "It has expired")


def test_without_a_proven_time_nothing_is_judged(known: Device) -> None:
    known.clock.now = None
    with pytest.raises(RemoteError) as error:
        known.trust.check("digits", "1.0.0", V1)
    assert "proven no time" in error.value.why


def test_mix_and_match_of_lists_is_refused(known: Device) -> None:
    of_then = known.sim.published[Targets.type]
    released(known.sim, "2.0.0", V2)
    known.sim.published[Targets.type] = of_then
    refused(known, "not the version that must follow", "2.0.0", V2)


def test_mix_and_match_of_snapshots_is_refused(known: Device) -> None:
    of_then = known.sim.published[Snapshot.type]
    released(known.sim, "2.0.0", V2)
    known.sim.published[Snapshot.type] = of_then
    refused(known, "not the version that must follow", "2.0.0", V2)


@pytest.mark.parametrize("role", ["timestamp", "2.snapshot", "2.targets", "2.root"])
def test_endless_data_is_cut_off(device: Device, role: str) -> None:
    released(device.sim, "1.0.0", V1)
    device.sim.answers[f"metadata/{role}.json"] = endless
    refused(device, "More bytes came")


@pytest.mark.parametrize("device", ["http"], indirect=True)  # without a network nothing is slow
def test_slow_retrieval_is_given_up(device: Device) -> None:
    released(device.sim, "1.0.0", V1)
    device.sim.answers["metadata/timestamp.json"] = dripping
    device.trust._fetcher._max_seconds = 0.2
    with pytest.raises(RemoteError) as error:
        device.trust.check("digits", "1.0.0", V1)
    assert "took over" in error.value.why


@pytest.mark.parametrize("role", TOP)
def test_wrong_key_is_refused(known: Device, role: str) -> None:
    known.sim.signers[role] = [CryptoSigner.generate_ed25519()]
    released(known.sim, "2.0.0", V2)
    refused(known, "Too few of the keys", "2.0.0", V2)


@pytest.mark.parametrize("role", TOP)
def test_too_few_signatures_are_refused(device: Device, role: str) -> None:
    second = device.sim.add_key(role)
    device.sim.root.roles[role].threshold = 2
    device.sim.publish_root()
    device.sim.signers[role].remove(second)
    released(device.sim, "1.0.0", V1)
    refused(device, "Too few of the keys")
    device.sim.signers[role].append(second)
    released(device.sim, "1.0.0", V1)
    device.trust.check("digits", "1.0.0", V1)


def test_one_signature_twice_is_one_signature(device: Device) -> None:
    device.sim.add_key(Targets.type)
    device.sim.root.roles[Targets.type].threshold = 2
    device.sim.publish_root()
    first = device.sim.signers[Targets.type][0]
    device.sim.signers[Targets.type] = [first, first]
    released(device.sim, "1.0.0", V1)
    refused(device, "")


def test_a_root_that_the_root_before_did_not_sign_is_refused(known: Device) -> None:
    known.sim.rotate(Root.type)
    known.sim.publish_root()
    refused(known, "Too few of the keys")


def test_a_root_that_does_not_sign_itself_is_refused(known: Device) -> None:
    old = known.sim.rotate(Root.type)
    known.sim.signers[Root.type] = [old]
    known.sim.publish_root()
    refused(known, "Too few of the keys")


def test_a_root_of_another_version_than_the_next_is_refused(known: Device) -> None:
    known.sim.root.version = 3
    known.sim.roots.append(known.sim.signed(known.sim.root, known.sim.signers[Root.type]))
    refused(known, "not the version that must follow")


@pytest.mark.parametrize("role", [Root.type, *TOP])
def test_keys_rotate_and_the_old_one_is_good_no_more(known: Device, role: str) -> None:
    old = known.sim.rotate(role)
    known.sim.publish_root(also=[old] if role == Root.type else [])
    released(known.sim, "2.0.0", V2)
    known.trust.check("digits", "2.0.0", V2)
    known.sim.signers[role] = [old]
    if role == Root.type:
        known.sim.publish_root()
    released(known.sim, "3.0.0", EVIL)
    refused(known, "Too few of the keys", "3.0.0", EVIL)


def test_fast_forward_is_recovered_from_by_rotation(known: Device) -> None:
    sim, honest = known.sim, copy.deepcopy((known.sim.timestamp, known.sim.snapshot))
    # A thief of the online keys has the device see versions that no honest one will reach.
    sim.timestamp.version = sim.snapshot.version = 2**31
    sim.snapshot.meta["targets.json"].version = sim.targets.version
    sim.publish_snapshot()
    sim.publish_timestamp()
    known.trust.check("digits", "1.0.0", V1)
    sim.timestamp, sim.snapshot = honest
    released(sim, "2.0.0", V2)
    refused(known, "not the version that must follow", "2.0.0", V2)
    sim.rotate(Timestamp.type)
    sim.rotate(Snapshot.type)
    sim.publish_root()
    sim.publish()
    known.trust.check("digits", "2.0.0", V2)


def test_a_team_signs_its_own_models_and_no_others(device: Device) -> None:
    device.sim.delegate("vision", "faces/*")
    device.sim.sign("faces/1.0.0", V1, "vision")
    device.sim.sign("digits/1.0.0", EVIL, "vision")
    device.sim.publish(Targets.type, "vision")
    device.trust.check("faces", "1.0.0", V1)
    refused(device, "Nobody who may sign it", "1.0.0", EVIL)


def test_a_team_cannot_name_the_director(device: Device) -> None:
    device.sim.delegate("vision", "faces/*")
    device.sim.sign(DIRECTOR, EVIL, "vision")
    device.sim.publish(Targets.type, "vision")
    with pytest.raises(TrustError):
        device.trust.director_keys()


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"{}", b"[" * 10_000, b'{"signed": 1}'])
def test_garbage_is_refused_and_forgotten(known: Device, garbage: bytes) -> None:
    before = known.stored()

    def answer() -> Iterable[bytes]:
        return (garbage,)

    known.sim.answers["metadata/timestamp.json"] = answer
    refused(known, "")
    assert known.stored() == before
    del known.sim.answers["metadata/timestamp.json"]
    known.trust.check("digits", "1.0.0", V1)


def test_what_is_withheld_is_asked_for_again_and_not_refused(known: Device) -> None:
    of_then = known.sim.published.pop(Timestamp.type)
    with pytest.raises(RemoteError):
        known.trust.check("digits", "1.0.0", V1)
    known.sim.published[Timestamp.type] = of_then
    known.trust.check("digits", "1.0.0", V1)


def test_a_device_that_was_away_for_years_follows_every_root(known: Device) -> None:
    for _ in range(20):
        old = known.sim.rotate(Root.type)
        known.sim.rotate(Timestamp.type)
        known.sim.publish_root(also=[old])
    for each in (known.sim.root, known.sim.timestamp, known.sim.snapshot, known.sim.targets):
        each.expires = at(NOW + 1000 * 86400.0)
    known.sim.publish_root()
    released(known.sim, "2.0.0", V2)
    known.clock.now = NOW + 900 * 86400.0
    known.trust.check("digits", "2.0.0", V2)


def test_keys_that_change_between_two_requests_are_no_attack(known: Device) -> None:
    sim = known.sim

    def late() -> Iterable[bytes]:
        # The device has asked for the next root already, and there was none.
        del sim.answers["metadata/timestamp.json"]
        sim.rotate(Timestamp.type)
        sim.publish_root()
        sim.publish(Targets.type)
        return (sim.published[Timestamp.type],)

    sim.answers["metadata/timestamp.json"] = late
    known.trust.check("digits", "1.0.0", V1)
