"""Captured frames at the fleet: only what was asked for, whole or not at all, and not for ever."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete

from cloud_sync.messages import encode
from cloud_sync.samples import CaptureReason, MediaType, SampleHeld, SampleOffer, reason_of
from cloud_sync.trust import PayloadType, generate, sign
from edgeml.errors import DeviceError, TrustError, UserError
from fleet.db import tables
from fleet.problem import Conflict, Forbidden, NotFound
from fleet.rollouts.selector import parse_selector
from fleet.samples import MAX_COMING, STALE_S, SampleFolder
from fleet.services import Caller, Services, decommission, devices, samples
from fleet.services.retention import DAY_S, Retention
from tests.fleet.conftest import Clock, Device

RELEASE = "sha256:" + "a" * 64
FRAME = b"a frame" * 100


def digest_of(frame: bytes) -> str:
    return f"sha256:{hashlib.sha256(frame).hexdigest()}"


def offer_of(frame: bytes, device: str = "cam-1", **more: Any) -> SampleOffer:
    line = {"t": 1_795_279_438.5, "release": RELEASE, "release_version": "1.0.0", "label": "7"}
    line |= {"confidence": 0.4, "confident": False, **more}
    return SampleOffer(
        device=device,
        model="digits",
        digest=digest_of(frame),
        size=len(frame),
        media_type=MediaType.PNG,
        reason=reason_of(line),
        line=line,
    )


def offered(services: Services, device: Device, offer: SampleOffer) -> SampleHeld:
    signed = sign(encode(offer), PayloadType.SAMPLE, device.key)
    return samples.offer(services, device.device, signed)


def send(services: Services, offer: SampleOffer, offset: int, piece: bytes) -> SampleHeld:
    return samples.take(
        services, offer.device, offer.model, offer.digest, offset=offset, piece=piece
    )


def bring(services: Services, device: Device, frame: bytes, **more: Any) -> SampleOffer:
    offer = offer_of(frame, device.device, **more)
    assert not offered(services, device, offer).stored
    assert send(services, offer, 0, frame).stored
    return offer


def listed(services: Services, **how: Any) -> list[Any]:
    return list(samples.list_samples(services, **how)["items"])


def files(services: Services) -> list[str]:
    return sorted(p.suffix for p in services.samples.folder.rglob("*") if p.is_file())


@pytest.fixture
def device(
    services: Services, enroll: Callable[..., Device], operator: Caller, tmp_path: Path
) -> Device:
    made = enroll(services, tmp_path, site="north")
    asked = {"capture": {"digits": {"upload": True}}}
    devices.configure(services, operator, made.device, asked)
    return made


def test_a_frame_comes_in_pieces_and_is_listed_once_it_is_whole(
    services: Services, device: Device
) -> None:
    offer = offer_of(FRAME)
    assert offered(services, device, offer) == SampleHeld(digest=offer.digest, size=0)
    assert send(services, offer, 0, FRAME[:300]).size == 300
    # What was cut is asked for again, a piece that comes twice is passed over.
    assert offered(services, device, offer).size == 300
    assert send(services, offer, 0, FRAME[:300]).size == 300
    assert listed(services) == []
    assert send(services, offer, 300, FRAME[300:]).stored
    [one] = listed(services)
    assert (one["device"], one["version"], one["release"]) == ("cam-1", "1.0.0", RELEASE)
    assert (one["reason"], one["confidence"]) == (CaptureReason.UNSURE, 0.4)
    assert (one["captured_at"], one["size"]) == (1_795_279_438.5, len(FRAME))
    assert one["result"] == {"label": "7", "confidence": 0.4, "confident": False}
    assert services.samples.whole(offer).read_bytes() == FRAME
    assert services.samples.whole(offer).stat().st_mode & 0o777 == 0o600
    assert services.samples.folder.stat().st_mode & 0o777 == 0o700


def test_a_frame_that_is_offered_again_is_stored_already(
    services: Services, device: Device
) -> None:
    offer = bring(services, device, FRAME)
    assert offered(services, device, offer).stored
    assert send(services, offer, 0, FRAME).stored
    assert len(listed(services)) == 1


def test_a_fleet_that_was_killed_before_the_commit_goes_on_at_the_next_offer(
    services: Services, device: Device
) -> None:
    offer = offer_of(FRAME)
    offered(services, device, offer)
    assert services.samples.append(offer, 0, FRAME) == len(FRAME)  # and then it was killed
    assert listed(services) == []
    assert offered(services, device, offer).stored
    assert len(listed(services)) == 1


def test_what_is_not_its_digest_is_thrown_away_and_comes_again(
    services: Services, device: Device
) -> None:
    offer = offer_of(FRAME)
    offered(services, device, offer)
    with pytest.raises(Conflict, match="not what its digest says"):
        send(services, offer, 0, bytes(len(FRAME)))
    assert listed(services) == []
    assert offered(services, device, offer).size == 0
    assert send(services, offer, 0, FRAME + b"and more than it said").stored


def test_a_device_of_which_no_frames_are_wanted_gives_none(
    services: Services, device: Device, operator: Caller
) -> None:
    offer = offer_of(FRAME)
    offered(services, device, offer)
    devices.configure(services, operator, "cam-1", {"capture": {"digits": {"unsure": True}}})
    with pytest.raises(Forbidden, match="not asked for"):
        send(services, offer, 0, FRAME)
    with pytest.raises(Forbidden, match="not asked for"):
        offered(services, device, offer)
    devices.configure(services, operator, "cam-1", {})
    with pytest.raises(Forbidden, match="not asked for"):
        offered(services, device, offer)


def test_only_the_device_itself_speaks_of_its_frames(services: Services, device: Device) -> None:
    forged = sign(encode(offer_of(FRAME)), PayloadType.SAMPLE, generate())
    with pytest.raises(TrustError):
        samples.offer(services, "cam-1", forged)
    with pytest.raises(TrustError, match="refused"):
        offered(services, device, offer_of(FRAME, "cam-2"))
    assert services.counters.all()["security.forged-sample"] == 2
    with pytest.raises(NotFound):
        send(services, offer_of(FRAME), 0, FRAME)


def test_a_frame_that_is_too_large_is_never_taken(services: Services, device: Device) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    lines: tuple[dict[str, Any], ...] = (
        {"text": "x" * (1 << 19)},
        {"objects": deep},
        {"t": 10**400},
    )
    wrongs: list[dict[str, Any]] = [{"size": 0}, {"size": 1 << 40}]
    for wrong in wrongs + [{"line": line} for line in lines]:
        with pytest.raises(UserError):
            offered(services, device, msgspec.structs.replace(offer_of(FRAME), **wrong))


def test_a_time_that_cannot_be_is_that_of_its_coming(services: Services, device: Device) -> None:
    for at in (-1.0, 1e308, "noon"):
        bring(services, device, repr(at).encode(), t=at)
    assert {one["captured_at"] for one in listed(services)} == {services.now()}


def test_a_number_is_never_given_again(services: Services, device: Device, clock: Clock) -> None:
    bring(services, device, b"first")
    bring(services, device, b"second")
    one, other = (found["id"] for found in listed(services))
    assert other < one
    samples.forget(services, Retention(samples_bytes=0))
    clock.now += 1
    bring(services, device, b"third")
    assert listed(services)[0]["id"] > one


def test_a_disk_without_room_takes_nothing_and_loses_nothing(
    services: Services, device: Device
) -> None:
    offer, folder = offer_of(FRAME), services.samples.folder
    offered(services, device, offer)
    send(services, offer, 0, FRAME[:300])
    services.__dict__["samples"] = SampleFolder(folder, spare_bytes=1 << 60)
    with pytest.raises(DeviceError, match="no room"):
        send(services, offer, 300, FRAME[300:])
    with pytest.raises(DeviceError, match="no room"):
        offered(services, device, offer_of(b"another"))
    services.__dict__["samples"] = SampleFolder(folder)
    assert offered(services, device, offer).size == 300
    assert send(services, offer, 300, FRAME[300:]).stored


def test_the_list_is_of_a_scope_and_of_what_is_asked_for(
    services: Services,
    device: Device,
    operator: Caller,
    enroll: Callable[..., Device],
    tmp_path: Path,
) -> None:
    (tmp_path / "south").mkdir()
    other = enroll(services, tmp_path / "south", "cam-2", site="south")
    devices.configure(services, operator, "cam-2", {"capture": {"digits": {"upload": True}}})
    bring(services, device, b"unsure")
    bring(services, device, b"sure", confident=True)
    bring(services, other, b"failed", error="too dark")
    assert [one["reason"] for one in listed(services)] == ["failed", "one-in", "unsure"]
    assert [one["reason"] for one in listed(services, reasons=["unsure"])] == ["unsure"]
    assert len(listed(services, selector="site=north")) == 2
    assert len(listed(services, device="cam-2", model="digits")) == 1
    assert len(listed(services, scope=parse_selector("site=south"))) == 1
    assert listed(services, model="faces") == []
    page = samples.list_samples(services, limit=2, oldest_first=True)
    [last] = listed(services, after=int(page["next"] or 0), oldest_first=True)
    assert last["reason"] == "failed"
    with pytest.raises(UserError, match="is no reason"):
        listed(services, reasons=["boredom"])


def test_old_frames_go_and_of_too_many_the_oldest(
    services: Services, device: Device, clock: Clock
) -> None:
    for number in range(4):
        bring(services, device, bytes([number]) * 1000)
        clock.now += DAY_S
    assert samples.forget(services, Retention()) == 0
    assert samples.forget(services, Retention(samples_bytes=20_000)) == 2
    assert len(listed(services)) == 2
    assert samples.forget(services, Retention(samples_days=1.5)) == 1
    assert files(services) == [".json", ".png"]
    [one] = listed(services)
    assert one["digest"] == digest_of(bytes([3]) * 1000)


def test_at_the_end_of_a_devices_service_its_frames_go(
    services: Services, device: Device, operator: Caller
) -> None:
    bring(services, device, FRAME)
    decommission.decommission(services, operator, "cam-1")
    assert listed(services) == []
    assert files(services) == []


def test_after_a_restore_the_table_says_what_the_folder_holds(
    services: Services, device: Device
) -> None:
    kept, lost = bring(services, device, b"kept"), bring(services, device, b"lost")
    half = offer_of(b"half of it")
    offered(services, device, half)
    with services.database.write() as session:  # a backup from before the first one
        row = tables.Sample
        session.execute(delete(row).where(row.digest == kept.digest))
    services.samples.remove(lost.model, lost.device, lost.digest)
    assert samples.reconcile(services) == 1
    assert [one["digest"] for one in listed(services)] == [kept.digest]
    assert samples.reconcile(services) == 0
    assert offered(services, device, half).size == 0


def test_what_came_no_further_is_swept_away_after_a_month(
    services: Services, device: Device
) -> None:
    offer = offer_of(FRAME)
    offered(services, device, offer)
    send(services, offer, 0, FRAME[:300])
    samples.reconcile(services)
    assert files(services) == [".json", ".part"]
    for path in services.samples.folder.rglob("*.*"):
        if path.is_file():
            os.utime(path, times=(time.time() - STALE_S - 60,) * 2)
    samples.reconcile(services)
    assert files(services) == []


def test_what_came_half_is_swept_away_when_it_is_not_asked_for_any_more(
    services: Services, device: Device, operator: Caller
) -> None:
    bring(services, device, b"whole")
    offer = offer_of(FRAME)
    offered(services, device, offer)
    send(services, offer, 0, FRAME[:300])
    devices.configure(services, operator, "cam-1", {})
    samples.reconcile(services)
    assert files(services) == [".json", ".png"]
    assert len(listed(services)) == 1


def test_frames_of_a_decommissioned_device_do_not_come_back_with_a_copy_of_the_folder(
    services: Services, device: Device, operator: Caller
) -> None:
    offer = bring(services, device, FRAME)
    said = services.samples.whole(offer).with_suffix(".json").read_bytes()
    decommission.decommission(services, operator, "cam-1")
    services.samples.begin(offer)
    services.samples.append(offer, 0, FRAME)
    assert services.samples.whole(offer).with_suffix(".json").read_bytes() == said
    assert samples.reconcile(services) == 0
    assert listed(services) == []
    assert files(services) == [".json", ".png"]
    for path in services.samples.folder.rglob("*.json"):
        os.utime(path, times=(time.time() - STALE_S - 60,) * 2)
    assert samples.reconcile(services) == 0
    assert files(services) == []


def test_a_device_that_begins_frame_after_frame_gives_up_the_oldest(
    services: Services, device: Device
) -> None:
    first, *rest = (offer_of(bytes([number])) for number in range(MAX_COMING + 2))
    offered(services, device, first)
    past = time.time() - 60
    for path in services.samples.folder.rglob("*.json"):
        os.utime(path, times=(past, past))
    for offer in rest:
        offered(services, device, offer)
    assert len(files(services)) == MAX_COMING
    with pytest.raises(NotFound):
        send(services, first, 0, bytes([0]))
    assert send(services, rest[-1], 0, bytes([MAX_COMING + 1])).stored
