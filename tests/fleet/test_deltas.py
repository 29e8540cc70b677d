"""Deltas from end to end: made for what devices run, offered, fetched and put together."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloud_sync.delta import DeltaFailed, DeltaOffers
from cloud_sync.messages import DesiredModel, Phase, encode
from cloud_sync.release import Release, digest_of
from cloud_sync.transfer import OciClient
from cloud_sync.trust import PayloadType, sign
from edge_agent.store import ReleaseStore
from edge_agent.update.deltas import Deltas as DeviceDeltas
from edgeml.errors import RemoteError
from fleet.deltas import Deltas, Pair
from fleet.services import deltas, reported
from tests.fleet.conftest import Device, Listening, write_release
from tests.fleet.conftest import reported as running_model

WEIGHTS = np.random.default_rng(5).bytes(200_000)


@pytest.fixture
def updated(
    fleet: Listening, make_device: Callable[..., Device], tmp_path: Path
) -> tuple[Device, Release, Release]:
    """A device that runs 1.0.0, and 1.1.0, whose model differs in the middle."""
    first = write_release(tmp_path / "one", "1.0.0", WEIGHTS)
    second = write_release(tmp_path / "two", "1.1.0", WEIGHTS[:100_000] + WEIGHTS[:100_000])
    for folder in ("one", "two"):
        fleet.client.push(tmp_path / folder)
    device = make_device()
    wanted = DesiredModel(
        release=first.digest, variant=first.variants[0].digest, release_version="1.0.0"
    )
    device.models["digits"] = running_model(wanted, Phase.COMMITTED, wanted)
    hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
    reported.hello(fleet.services, device.device, hello)
    return device, first, second


def store_of(fleet: Listening, device: Device, release: Release, folder: Path) -> ReleaseStore:
    store = ReleaseStore(folder)
    registry = OciClient(fleet.devices, device.client().auth)
    for file in release.variants[0].files:
        registry.fetch_blob("digits", file.digest, file.size, store.blobs)
    registry.close()
    return store


def test_a_device_puts_a_model_together_from_the_one_it_runs(
    fleet: Listening, updated: tuple[Device, Release, Release], tmp_path: Path
) -> None:
    device, first, second = updated
    store = store_of(fleet, device, first, tmp_path / "store")
    new = second.variants[0].file("model")
    ours = DeviceDeltas(store, device.client().deltas)
    assert ours.offer(new.digest, new.size) is None  # none is made yet
    assert deltas.DeltaMaker(fleet.services).turn() == 1
    offer = ours.offer(new.digest, new.size)
    assert offer is not None
    assert offer.size < 0.6 * new.size
    registry = OciClient(fleet.devices, device.client().auth)
    registry.fetch_blob("digits", offer.digest, offer.size, store.blobs)
    registry.close()
    ours.apply(offer, new.digest, new.size)
    store.blobs.verify(new.digest)
    assert not store.blobs.has(offer.digest)


def test_only_what_devices_run_is_a_base_and_only_for_the_same_target(
    fleet: Listening, updated: tuple[Device, Release, Release]
) -> None:
    _, first, second = updated
    pair = Pair(first.variants[0].file("model").digest, second.variants[0].file("model").digest)
    assert deltas.wanted(fleet.services) == [pair]


def test_a_rollout_of_a_configuration_under_way_is_no_goal(
    fleet: Listening, updated: tuple[Device, Release, Release]
) -> None:
    before = deltas.wanted(fleet.services)
    fleet.client.change_layer("fleet", {"telemetry_every_s": 7})
    assert [r["status"] for r in fleet.client.rollouts()] == ["running"]
    assert deltas.wanted(fleet.services) == before != []


def test_a_pair_is_tried_once_also_where_it_is_not_worth_it(
    fleet: Listening, updated: tuple[Device, Release, Release], tmp_path: Path
) -> None:
    device, first, _ = updated
    other = write_release(tmp_path / "scratch", "2.0.0", np.random.default_rng(9).bytes(200_000))
    fleet.client.push(tmp_path / "scratch")
    maker = deltas.DeltaMaker(fleet.services)
    assert maker.turn() == 1  # the newest release is the goal
    assert maker.turn() == 0
    target = other.variants[0].file("model").digest
    made = Deltas(fleet.services.registry)
    pair = Pair(first.variants[0].file("model").digest, target)
    assert made.all()[pair].digest == ""
    assert made.offers(target) == DeltaOffers()
    store = store_of(fleet, device, first, tmp_path / "store")
    assert DeviceDeltas(store, device.client().deltas).offer(target, 200_000) is None


def test_a_delta_that_failed_is_not_taken_again(
    fleet: Listening, updated: tuple[Device, Release, Release], tmp_path: Path
) -> None:
    device, first, second = updated
    store = store_of(fleet, device, first, tmp_path / "store")
    deltas.DeltaMaker(fleet.services).turn()
    new = second.variants[0].file("model")
    ours = DeviceDeltas(store, device.client().deltas)
    offer = ours.offer(new.digest, new.size)
    assert offer is not None
    path = store.blobs.path(offer.digest)
    path.write_bytes(b"edgeml-delta-1\n{}\n")
    with pytest.raises(DeltaFailed) as failed:
        ours.apply(offer, new.digest, new.size)
    assert failed.value.cause == "delta-damaged"
    assert not path.exists()
    assert not store.blobs.has(new.digest)
    assert ours.offer(new.digest, new.size) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"offers":[{"base":"../../x","digest":"sha256:0","size":1}]}',
        b'{"offers":[{"base":"a","digest":"b","size":-1}]}',
    ],
)
def test_what_a_hostile_fleet_offers_is_no_offer(tmp_path: Path, answer: bytes) -> None:
    ours = DeviceDeltas(ReleaseStore(tmp_path), lambda _digest: answer)
    assert ours.offer(digest_of(b"x"), 100_000) is None


def test_a_fleet_that_cannot_be_asked_offers_none(tmp_path: Path) -> None:
    def unreachable(_digest: str) -> bytes:
        raise RemoteError("The fleet cannot be reached.")

    assert DeviceDeltas(ReleaseStore(tmp_path), unreachable).offer(digest_of(b"x"), 1) is None


def test_nothing_is_told_of_a_text_that_is_no_digest(
    fleet: Listening, updated: tuple[Device, Release, Release]
) -> None:
    device, _, _ = updated
    with pytest.raises(RemoteError):
        device.client().deltas("..%2F..%2Fkeys")


def test_what_a_crash_left_half_made_is_removed(fleet: Listening) -> None:
    left = fleet.services.registry.folder / "deltas" / ".making-x"
    left.mkdir(parents=True)
    (left / "delta").write_bytes(b"half")
    Deltas(fleet.services.registry).prepare()
    assert not left.exists()


_APPLY = """
import sys
from pathlib import Path
from edge_agent.store import ReleaseStore
from edge_agent.update.deltas import Deltas, Offer
store, base, delta, target, size = sys.argv[1:]
offer = Offer(base=base, digest=delta, size=1)
Deltas(ReleaseStore(Path(store)), lambda _: None).apply(offer, target, int(size))
"""


@pytest.mark.parametrize("failpoint", ["delta-applying", "delta-piece", "delta-applied"])
def test_kill_9_while_a_delta_is_applied_leaves_nothing_half(
    fleet: Listening, updated: tuple[Device, Release, Release], tmp_path: Path, failpoint: str
) -> None:
    device, first, second = updated
    store = store_of(fleet, device, first, tmp_path / "store")
    deltas.DeltaMaker(fleet.services).turn()
    new = second.variants[0].file("model")
    [offer] = Deltas(fleet.services.registry).offers(new.digest).offers
    store.blobs.put_file(fleet.services.registry.blobs.path(offer.digest))
    arguments = [str(store.blobs.folder), offer.base, offer.digest, new.digest, str(new.size)]
    killed = {**os.environ, "EDGEML_FAILPOINT": f"{failpoint}:kill"}
    done = subprocess.run([sys.executable, "-c", _APPLY, *arguments], env=killed, check=False)
    assert done.returncode == -9
    # Whole, or not there; what is half is no blob, and the next collection takes it.
    assert store.blobs.has(new.digest) == (failpoint == "delta-applied")
    subprocess.run([sys.executable, "-c", _APPLY, *arguments], check=True)
    store.blobs.verify(new.digest)
    store.keep_only(list)
    folder = store.blobs.path(new.digest).parent
    assert list(folder.iterdir()) == []
