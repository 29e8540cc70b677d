from typing import Any

import pytest
from sqlalchemy import select

from cloud_sync.messages import EnrollRequest
from cloud_sync.trust import generate
from cloud_sync.trust.identity import make_request
from edgeml.errors import TrustError, UserError
from fleet.db import tables
from fleet.services import Services, audit, enrollment


def request_for(token: str, device: str = "cam-1", key: Any = None) -> EnrollRequest:
    return EnrollRequest(token=token, csr=make_request(device, key or generate()))


def test_an_expired_token_is_refused(services: Services, clock: Any, operator: Any) -> None:
    token = enrollment.create_token(services, operator, "cam-1", {}, 60.0)["token"]
    clock.now += 61
    with pytest.raises(TrustError, match="expired 1 seconds ago"):
        enrollment.enroll(services, request_for(token))


def test_only_hashes_of_tokens_and_passwords_are_kept(services: Services, operator: Any) -> None:
    token = enrollment.create_token(services, operator, "cam-1", {})["token"]
    enrolled = enrollment.enroll(services, request_for(token))
    kept = (services.database.engine.url.database or "").encode()
    data = b"".join(path.read_bytes() for path in _files(kept.decode()) if path.exists())
    assert token.encode() not in data
    assert enrolled.mqtt.password.encode() not in data
    assert enrollment.check_mqtt_password(services, "cam-1", enrolled.mqtt.password)
    assert not enrollment.check_mqtt_password(services, "cam-1", "another")
    assert not enrollment.check_mqtt_password(services, "nobody", enrolled.mqtt.password)


def _files(database: str) -> list[Any]:
    from pathlib import Path

    return [Path(database), Path(f"{database}-wal")]


@pytest.mark.parametrize("device", ["", "a/b", "a+b", "#", "edgeml-fleet", "x" * 65])
def test_names_that_cannot_be_devices_are_refused(
    services: Services, operator: Any, device: str
) -> None:
    with pytest.raises(UserError, match="cannot be a device's id"):
        enrollment.create_token(services, operator, device, {})


def test_labels_and_lifetimes_are_checked(services: Services, operator: Any) -> None:
    with pytest.raises(UserError, match="label"):
        enrollment.create_token(services, operator, "cam-1", {"a b": "c"})
    for ttl_s in (0.0, -1.0, float("nan"), 1e12):
        with pytest.raises(UserError, match="cannot live"):
            enrollment.create_token(services, operator, "cam-1", {}, ttl_s)


def test_a_refused_enrolment_uses_nothing_up(services: Services, operator: Any) -> None:
    key = generate()
    first = enrollment.create_token(services, operator, "cam-1", {})["token"]
    enrollment.enroll(services, request_for(first, key=key))
    second = enrollment.create_token(services, operator, "cam-2", {})["token"]
    with pytest.raises(TrustError, match="that of cam-1 already"):
        enrollment.enroll(services, request_for(second, "cam-2", key))
    enrollment.enroll(services, request_for(second, "cam-2"))


def test_every_key_that_a_device_had_is_kept(services: Services, operator: Any) -> None:
    for _ in range(2):
        token = enrollment.create_token(services, operator, "cam-1", {})["token"]
        enrollment.enroll(services, request_for(token))
    with services.database.read() as session:
        assert len(list(session.scalars(select(tables.DeviceKey)))) == 2


def test_enrolment_is_audited(services: Services, operator: Any) -> None:
    token = enrollment.create_token(services, operator, "cam-1", {"site": "north"})["token"]
    enrollment.enroll(services, request_for(token))
    done, asked = audit.entries(services)["items"]
    assert (asked["action"], asked["actor"], asked["reason"]) == (
        "enrollment.create",
        "operator",
        "a test",
    )
    assert asked["detail"] == {"labels": {"site": "north"}}
    assert (done["action"], done["actor"]) == ("device.enroll", "device cam-1")


@pytest.mark.parametrize(("name", "uses"), [("cam-1", 1), ("cam-*", 3)])
def test_a_device_whose_answer_was_lost_asks_again_with_its_key_until_it_has_spoken(
    services: Services, operator: Any, name: str, uses: int
) -> None:
    token = enrollment.create_token(services, operator, name, {}, uses=uses)["token"]
    key = generate()
    lost = enrollment.enroll(services, request_for(token, key=key))
    again = enrollment.enroll(services, request_for(token, key=key))
    assert not enrollment.check_mqtt_password(services, "cam-1", lost.mqtt.password)
    assert enrollment.check_mqtt_password(services, "cam-1", again.mqtt.password)
    with services.database.read() as session:
        assert session.scalars(select(tables.Enrollment)).one().uses == uses - 1
    with pytest.raises(TrustError, match="refused"):
        enrollment.enroll(services, request_for(token))
    with services.database.write() as session:
        session.get_one(tables.Device, "cam-1").last_seen = services.now() + 1
    with pytest.raises(TrustError, match="refused"):
        enrollment.enroll(services, request_for(token, key=key))
