"""What a device's trust costs and keeps, and the keys' files."""

import os
from pathlib import Path

import pytest
from tuf.api.metadata import Targets

from cloud_sync.trust import generate, load_key, save_key
from cloud_sync.trust.keys import is_locked, public_pem
from cloud_sync.trust.releases import DIRECTOR
from edgeml.errors import RemoteError, TrustError
from tests.cloud_sync.trust.conftest import Device

V1 = f"sha256:{'a' * 64}"


def test_what_is_known_is_not_fetched_again(device: Device) -> None:
    device.sim.sign("digits/1.0.0", V1)
    device.sim.publish(Targets.type)
    device.trust.check("digits", "1.0.0", V1)
    names = [f"metadata/{name}.json" for name in ("2.root", "timestamp", "2.snapshot", "2.targets")]
    assert device.sim.asked == names
    device.trust.check("digits", "1.0.0", V1)
    assert device.sim.asked[4:] == names[:2]


def test_a_restarted_device_still_notices_a_rollback(device: Device) -> None:
    device.sim.sign("digits/1.0.0", V1)
    device.sim.publish(Targets.type)
    device.trust.check("digits", "1.0.0", V1)
    again = type(device.trust)(
        device.folder,
        device.sim.roots[0],
        device.trust._clock,
        device.trust._fetcher,
        device.trust._url,
    )
    device.sim.timestamp.version -= 1
    device.sim.publish_timestamp()
    with pytest.raises(TrustError):
        again.check("digits", "1.0.0", V1)


def test_a_file_that_the_disk_damaged_is_fetched_again(device: Device) -> None:
    device.sim.sign("digits/1.0.0", V1)
    device.sim.publish(Targets.type)
    device.trust.check("digits", "1.0.0", V1)
    for path in (device.folder / "metadata").glob("*.json"):
        path.write_bytes(b"")
    device.trust.check("digits", "1.0.0", V1)


def test_content_is_fetched_once(device: Device) -> None:
    pem = load_pem()
    device.sim.put(DIRECTOR, pem)
    device.sim.publish(Targets.type)
    first = device.trust.director_keys()
    number = len([path for path in device.sim.asked if path.startswith("targets/")])
    assert list(device.trust.director_keys()) == list(first)
    assert len([path for path in device.sim.asked if path.startswith("targets/")]) == number == 1


def test_two_director_keys_may_stand_side_by_side(device: Device) -> None:
    device.sim.put(DIRECTOR, load_pem() + load_pem())
    device.sim.publish(Targets.type)
    assert len(device.trust.director_keys()) == 2


def test_nobody_there_is_no_refusal(device: Device) -> None:
    device.trust._url = "http://127.0.0.1:1"
    with pytest.raises(RemoteError):
        device.trust.check("digits", "1.0.0", V1)


def test_a_locked_key_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    key, path = generate(), tmp_path / "alice.key"
    save_key(key, path, "a long one")
    assert is_locked(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path, "a long one").private_bytes_raw() == key.private_bytes_raw()
    for wrong in ("", "another"):
        with pytest.raises(TrustError, match="cannot be opened"):
            load_key(path, wrong)
    plain = tmp_path / "bob.key"
    save_key(key, plain)
    assert not is_locked(plain)
    assert not is_locked(tmp_path / "nobody.key")
    assert load_key(plain, os.devnull).private_bytes_raw() == key.private_bytes_raw()


def load_pem() -> bytes:
    return public_pem(generate().public_key()).encode()
