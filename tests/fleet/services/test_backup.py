"""A backup of a fleet that runs, put back: the fleet freezes, asks its devices, and goes on."""

import fcntl
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.messages import encode
from cloud_sync.trust import PayloadType, sign
from edgeml.errors import TrustError, UserError
from fleet.services import Services, audit, devices, identity, recovery, reported
from fleet.services.backup import backup, restore
from tests.needs import program


@pytest.fixture(autouse=True)
def programs(database_kind: str) -> None:
    if database_kind == "postgresql":
        program("pg_dump", "postgresql-client")


def data_of(services: Services) -> Path:
    return services.keys.folder.parent


def say_hello(services: Services, device: Any) -> Any:
    hello = sign(encode(device.hello()), PayloadType.HELLO, device.key)
    return device.take(reported.hello(services, device.device, hello))


def configure(services: Services, operator: Any, device: str, every_s: float) -> None:
    devices.configure(services, operator, device, {"telemetry_every_s": every_s})


def test_a_fleet_that_is_put_back_freezes_learns_from_its_devices_and_goes_on(
    services: Services,
    tmp_path: Path,
    enroll: Callable[..., Any],
    operator: Any,
    make: Callable[..., Services],
) -> None:
    device, lost = enroll(services, tmp_path), enroll(services, tmp_path, "cam-2")
    configure(services, operator, "cam-1", 2.0)
    file, data, url = tmp_path / "fleet.backup", data_of(services), services.database.url
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            configure(services, operator, "cam-2", 4.0)

    writer = threading.Thread(target=change)
    writer.start()
    manifest = backup(data, url, file)
    done.set()
    writer.join()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not manifest.with_keys

    configure(services, operator, "cam-1", 3.0)
    identity.revoke(services, operator, "cam-2")
    late = enroll(services, tmp_path, "cam-3")
    assert say_hello(services, device).configuration.telemetry_every_s == 3.0
    services.database.close()

    with pytest.raises(UserError, match="There is a database"):
        restore(data, url, file)
    restore(data, url, file, replace=True)
    services = make(data, services.now)
    assert "older copy" in recovery.frozen(services)
    after = say_hello(services, device)
    assert (after.epoch, after.configuration.telemetry_every_s) == (2, 3.0)
    with pytest.raises(TrustError):
        say_hello(services, lost)
    assert say_hello(services, late) is None
    recovery.thaw(services, operator)
    assert recovery.frozen(services) == ""
    configure(services, operator, "cam-1", 5.0)
    assert say_hello(services, device).configuration.telemetry_every_s == 5.0
    assert audit.verify(services) > 0
    services.database.close()


def test_a_machine_that_is_lost_comes_back_with_its_keys(
    services: Services,
    tmp_path: Path,
    enroll: Callable[..., Any],
    operator: Any,
    make: Callable[..., Services],
) -> None:
    device = enroll(services, tmp_path)
    file, data, url = tmp_path / "fleet.backup", data_of(services), services.database.url
    assert backup(data, url, file, with_keys=True).with_keys
    configure(services, operator, "cam-1", 3.0)
    say_hello(services, device)
    services.database.close()
    shutil.rmtree(data)

    restore(data, url, file, replace=True)
    with tarfile.open(file) as archive:
        assert "keys/head.json" not in archive.getnames()
    assert stat.S_IMODE((data / "keys").stat().st_mode) == 0o700
    services = make(data, services.now)
    assert "head.json is gone" in recovery.frozen(services)
    assert say_hello(services, device).configuration.telemetry_every_s == 3.0
    recovery.thaw(services, operator)
    services.database.close()


@pytest.mark.sqlite
def test_without_keys_nothing_is_put_where_there_are_none(
    services: Services, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.backup"
    backup(data_of(services), services.database.url, file)
    with pytest.raises(UserError, match="no keys"):
        restore(tmp_path / "elsewhere", services.database.url, file, replace=True)


@pytest.mark.sqlite
def test_a_fleet_that_runs_is_not_replaced(services: Services, tmp_path: Path) -> None:
    file, data = tmp_path / "fleet.backup", data_of(services)
    backup(data, services.database.url, file)
    with (data / "fleet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(UserError, match="is running"):
            restore(data, services.database.url, file, replace=True)


@pytest.mark.sqlite
def test_what_is_no_whole_backup_changes_nothing(
    services: Services, tmp_path: Path, enroll: Callable[..., Any]
) -> None:
    enroll(services, tmp_path)
    file, data, url = tmp_path / "fleet.backup", data_of(services), services.database.url
    backup(data, url, file)
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for content in (b"", whole[:100], whole[:2000], whole[:-20_000], bytes(damaged)):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"no backup|damaged|has no|cannot be used"):
            restore(data, url, file, replace=True)
        assert devices.show(services, "cam-1")["device"] == "cam-1"
