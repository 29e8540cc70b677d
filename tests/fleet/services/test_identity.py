"""Who a device is after its enrolment: renewed, revoked, told to brokers, kept over a restore."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from cloud_sync.messages import Batch, EnrollRequest, encode
from cloud_sync.trust import PayloadType, generate, key_id, open_envelope, sign
from cloud_sync.trust.identity import make_request, validity
from cloud_sync.trust.messages import RenewRequest, SignedTime, TimeRequest
from edgeml.errors import TrustError, UserError
from fleet.identity_ledger import Revoked
from fleet.problem import NotFound
from fleet.services import Services, enrollment, identity, records, recovery, reported
from fleet.services import security as events
from fleet.services.clones import KIND, RETURNS

DAY_S = 86400.0


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path)


def renewal(device: Any, key: Any, by: Any = None, name: str = "cam-1") -> bytes:
    request = RenewRequest(device=name, csr=make_request(name, key))
    return sign(encode(request), PayloadType.RENEWAL, by or device.key)


def revoked_serials(services: Services) -> set[int]:
    crl = x509.load_pem_x509_crl((services.keys.folder / "crl.pem").read_bytes())
    issuer = x509.load_pem_x509_certificate(services.keys.ca.encode())
    assert crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    return {entry.serial_number for entry in crl}


def serial(certificate: str) -> int:
    return x509.load_pem_x509_certificate(certificate.encode()).serial_number


def test_a_renewal_gives_a_new_key_and_revokes_the_certificate_before(
    services: Services, device: Any, clock: Any
) -> None:
    clock.now += 300 * DAY_S
    key = generate()
    renewed = identity.renew(services, "cam-1", renewal(device, key))
    assert validity(renewed.certificate)[1] == clock.now + 365 * DAY_S
    assert identity.known(services, "cam-1").key.public_bytes_raw() == (
        key.public_key().public_bytes_raw()
    )
    assert revoked_serials(services) == {serial(device.enrolled.certificate)}
    # The answer was lost: asked again with the new key, the fleet gives the same certificate.
    again = identity.renew(services, "cam-1", renewal(device, key, by=key))
    assert again.certificate == renewed.certificate


def test_an_expired_certificate_is_renewed_within_the_grace_and_not_after(
    services: Services, device: Any, clock: Any
) -> None:
    clock.now += 365 * DAY_S + services.grace_s - 1
    expired = device.key
    key = generate()
    identity.renew(services, "cam-1", renewal(device, key, by=expired))
    clock.now += 365 * DAY_S + services.grace_s + 1
    with pytest.raises(TrustError, match="expired 365 days ago"):
        identity.renew(services, "cam-1", renewal(device, generate(), by=key))


@pytest.mark.parametrize("forged", ["key", "device", "csr"])
def test_a_renewal_that_the_device_did_not_sign_for_itself_is_refused(
    services: Services, device: Any, forged: str
) -> None:
    envelope = {
        "key": lambda: renewal(device, generate(), by=generate()),
        "device": lambda: renewal(device, generate(), name="cam-2"),
        "csr": lambda: renewal(device, device.key)[:-10],
    }[forged]()
    with pytest.raises(TrustError):
        identity.renew(services, "cam-1", envelope)
    assert identity.known(services, "cam-1").key.public_bytes_raw() == (
        device.key.public_key().public_bytes_raw()
    )
    kinds = [event["kind"] for event in events.events(services)["items"]]
    assert kinds == ([] if forged == "device" else ["forged-renewal"])


def test_a_revoked_device_is_let_in_nowhere_until_it_is_enrolled_again(
    services: Services, device: Any, operator: Any
) -> None:
    told: list[str] = []
    services.replaced.tell(told.append)
    password = device.enrolled.mqtt.password
    assert enrollment.check_mqtt_password(services, "cam-1", password)
    assert identity.revoke(services, operator, "cam-1")
    assert not identity.revoke(services, operator, "cam-1")
    assert told == ["cam-1"]
    assert not enrollment.check_mqtt_password(services, "cam-1", password)
    assert revoked_serials(services) == {serial(device.enrolled.certificate)}
    for refused in (
        lambda: identity.known(services, "cam-1"),
        lambda: reported.device_key(services, "cam-1"),
        lambda: identity.renew(services, "cam-1", renewal(device, generate())),
    ):
        with pytest.raises(TrustError):
            refused()
    with pytest.raises(NotFound):
        identity.revoke(services, operator, "cam-9")
    token = enrollment.create_token(services, operator, "cam-1", {})["token"]
    new = generate()
    enrollment.enroll(services, EnrollRequest(token=token, csr=make_request("cam-1", new)))
    assert key_id(identity.known(services, "cam-1").key) == key_id(new.public_key())


def test_the_time_is_told_for_a_nonce_and_a_reset_has_a_name(
    services: Services, device: Any, operator: Any, clock: Any
) -> None:
    def ask(nonce: str) -> SignedTime:
        question = encode(TimeRequest(device="cam-1", nonce=nonce))
        told = identity.tell_time(services, "cam-1", question)
        payload = open_envelope(told, services.keys.director_keys, PayloadType.TIME)
        return msgspec.json.decode(payload, type=SignedTime)

    first = ask("n" * 20)
    assert (first.nonce, first.at, first.reset) == ("n" * 20, clock.now, "")
    name = identity.reset_time(services, operator)
    assert ask("m" * 20).reset == name
    with pytest.raises(TrustError):
        identity.tell_time(services, "cam-2", encode(TimeRequest(device="cam-1", nonce="n" * 20)))


def test_a_token_for_many_lets_new_devices_in_as_often_as_it_says(
    services: Services, device: Any, operator: Any
) -> None:
    token = enrollment.create_token(services, operator, "cam-*", {"site": "x"}, uses=2)["token"]

    def come(name: str) -> None:
        csr = make_request(name, generate())
        enrollment.enroll(services, EnrollRequest(token=token, csr=csr))

    with pytest.raises(TrustError, match="there is a cam-1 already"):
        come("cam-1")
    with pytest.raises(TrustError, match=r"It is for cam-\*"):
        come("gate-1")
    come("cam-7")
    come("cam-8")
    with pytest.raises(TrustError, match="used before"):
        come("cam-9")


@pytest.mark.parametrize(("name", "uses"), [("cam-*", 1), ("cam-1", 2), ("*", 2), ("cam-*", 0)])
def test_a_token_is_for_one_device_or_for_several_that_are_named(
    services: Services, operator: Any, name: str, uses: int
) -> None:
    with pytest.raises(UserError):
        enrollment.create_token(services, operator, name, {}, uses=uses)


def test_a_restored_database_forgets_no_key_no_revocation_and_no_used_token(
    services: Services, tmp_path: Path, operator: Any, enroll: Any, backups: Any
) -> None:
    kept, lost = enroll(services, tmp_path, "cam-1"), enroll(services, tmp_path, "cam-2")
    spare = enrollment.create_token(services, operator, "cam-3", {})["token"]
    copy = backups.take(services)
    key = generate()
    identity.renew(services, "cam-1", renewal(kept, key))
    identity.revoke(services, operator, "cam-2")
    third = generate()
    enrollment.enroll(services, EnrollRequest(token=spare, csr=make_request("cam-3", third)))
    again = backups.restore(services, copy)
    try:
        assert recovery.frozen(again)
        assert key_id(identity.known(again, "cam-1").key) == key_id(key.public_key())
        assert key_id(identity.known(again, "cam-3").key) == key_id(third.public_key())
        with pytest.raises(TrustError, match="revoked"):
            identity.known(again, "cam-2")
        request = EnrollRequest(token=spare, csr=make_request("cam-3", generate()))
        with pytest.raises(TrustError, match="used before"):
            enrollment.enroll(again, request)
        assert lost
    finally:
        again.database.close()


def test_a_cloned_device_is_told_by_its_boots_and_a_late_hello_is_not(
    services: Services, device: Any
) -> None:
    def hello(boot: str, counter: int) -> None:
        said = msgspec.structs.replace(device.hello(), boot_id=boot, counter=counter)
        reported.hello(services, "cam-1", sign(encode(said), PayloadType.HELLO, device.key))

    def kinds() -> list[str]:
        return [event["kind"] for event in events.events(services)["items"]]

    hello("boot-a", 100)
    hello("boot-b", 5)  # a restart
    hello("boot-a", 101)  # late: it was on its way
    hello("boot-b", 6)
    hello("boot-b", 7)
    assert kinds() == []
    for counter in range(RETURNS):
        hello("boot-a", 200 + counter)
        hello("boot-b", 200 + counter)
    assert kinds() == [KIND]
    assert services.counters.all()[f"security.{KIND}"] >= 1


def test_a_wiped_device_is_no_clone(services: Services, device: Any) -> None:
    for number, stream in enumerate(("one", "two", "three")):
        said = msgspec.structs.replace(
            device.hello(), boot_id=f"boot-{number}", stream=stream, counter=10 + number
        )
        reported.hello(services, "cam-1", sign(encode(said), PayloadType.HELLO, device.key))
    assert events.events(services)["items"] == []


def test_the_ledger_keeps_what_matters_and_drops_what_a_crash_cut_off(
    services: Services, device: Any, operator: Any, clock: Any
) -> None:
    path = services.keys.folder / "ledger.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    for _ in range(8):
        device.key, key = generate(), device.key
        identity.renew(services, "cam-1", renewal(device, device.key, by=key))
        clock.now += 2 * DAY_S
    before = services.ledger.entries()
    path.write_bytes(path.read_bytes() + b'{"type": "rev')
    assert services.ledger.entries() == before
    # The fleet that comes up after the crash goes on from the last whole line.
    services.__dict__.pop("ledger")
    gone = Revoked(device="cam-2", at=1.0)
    services.ledger.append(gone)
    assert services.ledger.entries() == [*before, gone]
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b'{"type":"revoked"')])
    services.ledger.compact(clock.now)
    assert [json.loads(line)["type"] for line in path.read_text().splitlines()] == ["admitted"]
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(TrustError, match="is damaged"):
        services.ledger.entries()


def test_the_list_of_revoked_certificates_is_written_anew_each_day(
    services: Services, device: Any, operator: Any, clock: Any
) -> None:
    path = services.keys.folder / "crl.pem"
    identity.keep_revoked_fresh(services)
    first = path.read_bytes()
    clock.now = path.stat().st_mtime + 1
    identity.keep_revoked_fresh(services)
    assert path.read_bytes() == first
    clock.now += 2 * DAY_S
    identity.keep_revoked_fresh(services)
    crl = x509.load_pem_x509_crl(path.read_bytes())
    assert crl.last_update_utc > dt.datetime.fromtimestamp(clock.now - DAY_S, dt.UTC)


@pytest.mark.parametrize("kind", [PayloadType.BATCH, PayloadType.HELLO])
def test_what_a_renewal_has_overtaken_is_refused_and_no_event(
    services: Services, device: Any, clock: Any, kind: PayloadType
) -> None:
    def say(key: Any) -> None:
        clock.now += 10.0
        if kind is PayloadType.HELLO:
            reported.hello(services, "cam-1", sign(encode(device.hello()), kind, key))
        else:
            batch = sign(
                encode(Batch(device="cam-1", boot_id="b", stream="a", records=())), kind, key
            )
            now = reported.device_key(services, "cam-1")
            records.verify(services, "cam-1", batch, now)

    clock.now += 300 * DAY_S
    key = generate()
    identity.renew(services, "cam-1", renewal(device, key))
    say(key)
    with pytest.raises(TrustError):
        say(device.key)
    assert events.events(services)["items"] == []
    assert services.counters.all()["ingest.overtaken"] == 1
    with pytest.raises(TrustError):
        say(generate())
    clock.now += DAY_S
    with pytest.raises(TrustError):
        say(device.key)
    assert len(events.events(services)["items"]) >= 1
    assert services.counters.all()[f"security.forged-{kind.name.lower()}"] == 2


def test_the_key_that_a_replaced_device_had_is_an_event_at_once(
    services: Services, device: Any, operator: Any
) -> None:
    token = enrollment.create_token(services, operator, "cam-1", {})["token"]
    services.now.now += 1.0  # type: ignore[attr-defined]
    enrollment.enroll(services, EnrollRequest(token=token, csr=make_request("cam-1", generate())))
    said = sign(encode(device.hello()), PayloadType.HELLO, device.key)
    with pytest.raises(TrustError):
        reported.hello(services, "cam-1", said)
    assert [event["kind"] for event in events.events(services)["items"]] == ["forged-hello"]
