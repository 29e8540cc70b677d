from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.messages import encode
from cloud_sync.trust import PayloadType, generate, sign
from fleet.incarnation import HeadFile
from fleet.services import Services, audit, devices, recovery, reported, security


@pytest.fixture
def device(services: Services, tmp_path: Path, enroll: Callable[..., Any]) -> Any:
    return enroll(services, tmp_path)


def say_hello(services: Services, device: Any) -> Any:
    hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
    return device.take(reported.hello(services, "cam-1", hello))


def configure(services: Services, operator: Any, every_s: float) -> None:
    devices.configure(services, operator, "cam-1", {"telemetry_every_s": every_s})


def test_a_restart_is_no_disagreement(
    services: Services, device: Any, operator: Any, backups: Any
) -> None:
    configure(services, operator, 2.0)
    for _ in range(3):
        services = backups.restart(services)
        assert recovery.frozen(services) == ""
    assert say_hello(services, device).configuration.telemetry_every_s == 2.0
    services.database.close()


def test_an_older_database_freezes_rollouts_and_raises_the_epoch(
    services: Services,
    device: Any,
    operator: Any,
    backups: Any,
    tmp_path: Path,
) -> None:
    configure(services, operator, 2.0)
    copy = backups.take(services)
    configure(services, operator, 3.0)
    held = say_hello(services, device)
    assert (held.epoch, held.counter) == (1, 2)
    services = backups.restore(services, copy)
    assert "older copy" in recovery.frozen(services)
    assert reported.current_desired(services, "cam-1") is None
    after = say_hello(services, device)
    assert (after.epoch, after.counter) == (2, 1)
    assert after.configuration.telemetry_every_s == 3.0
    assert security.events(services)["items"][0]["kind"] == "database-restored"
    recovery.thaw(services, operator)
    assert recovery.frozen(services) == ""
    assert audit.verify(services) > 0
    services = backups.restart(services)
    assert recovery.frozen(services) == ""
    services.database.close()


def test_a_restored_database_lets_nobody_in_by_what_was_revoked_since(
    services: Services, operator: Any, backups: Any
) -> None:
    from fleet.roles import Role
    from fleet.services import credentials, tokens, users
    from fleet.services.credentials import THE_OWNER, Kind

    users.create(services, operator, "alice", Role.OPERATOR)
    made = tokens.create(services, THE_OWNER, "ci")
    with services.database.write() as session:
        secret, _ = credentials.issue(services, session, Kind.SESSION, THE_OWNER, 3600.0)
    copy = backups.take(services)
    tokens.revoke(services, THE_OWNER, made["id"])
    services = backups.restore(services, copy)
    assert credentials.find(services, made["token"], Kind.TOKEN) is None
    assert credentials.find(services, secret, Kind.SESSION) is None
    entry = next(e for e in audit.entries(services)["items"] if e["action"] == "fleet.forget")
    assert entry["detail"] == {"number": 2}
    services.database.close()


def test_a_database_from_before_the_last_start_is_noticed(
    services: Services, backups: Any, tmp_path: Path
) -> None:
    copy = backups.take(services)
    services = backups.restart(services)
    services = backups.restore(services, copy)
    assert "incarnation" in recovery.frozen(services)
    services.database.close()


def test_a_lost_database_is_noticed(services: Services, operator: Any, backups: Any) -> None:
    services = backups.lose(services)
    assert "database is new" in recovery.frozen(services)
    services.database.close()


def test_a_device_that_holds_more_than_the_database_knows_is_noticed(
    services: Services,
    device: Any,
    operator: Any,
    backups: Any,
    tmp_path: Path,
) -> None:
    from fleet.db import tables
    from fleet.services import desired

    configure(services, operator, 2.0)
    # A snapshot of the whole machine: database and keys agree, only devices know better.
    copy = backups.take(services)
    head = HeadFile(services.keys.folder / "head.json")
    old = head.read()
    with services.database.write() as session:
        row = session.get_one(tables.Device, "cam-1")
        assert row.config_version == 1
        device.take(desired.reissue(services, session, "cam-1"))
    assert old is not None
    head.write(old)
    services = backups.restore(services, copy)
    assert recovery.frozen(services) == ""
    after = say_hello(services, device)
    assert "cam-1 holds desired state 1.2" in recovery.frozen(services)
    assert (after.epoch, after.counter) == (2, 1)
    services.database.close()


def test_a_state_that_this_fleet_did_not_sign_proves_nothing(
    services: Services, device: Any, operator: Any
) -> None:
    configure(services, operator, 2.0)
    state = say_hello(services, device)
    import msgspec

    forged = sign(
        encode(msgspec.structs.replace(state, counter=99)), PayloadType.DESIRED, generate()
    )
    device.accepted = forged.decode()
    say_hello(services, device)
    assert recovery.frozen(services) == ""
