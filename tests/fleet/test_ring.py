"""A ring of keys after a crash at any step of a rotation."""

from pathlib import Path

from cloud_sync.trust import PrivateKey, key_id
from cloud_sync.trust.keys import public_pem
from fleet.ring import Ring


def publish(key: PrivateKey) -> str:
    return public_pem(key.public_key())


def ring(folder: Path) -> Ring:
    return Ring(folder, "director", publish, keep=True)


def test_a_crash_at_any_step_of_a_promotion_keeps_what_was_announced(tmp_path: Path) -> None:
    before = ring(tmp_path)
    before.announce()
    announced, coming = before.trusted, before.coming
    assert coming is not None
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    before.promote()
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # The files as they follow each other; a crash leaves the first so many of them.
    steps = ("director.old.key", "director.old.pem", "director.pem", "director.key")
    for done in range(len(steps) + 1):
        for path in tmp_path.iterdir():
            path.unlink()
        for name in {*files, *steps[:done]}:
            found = after[name] if name in steps[:done] else files[name]
            (tmp_path / name).write_bytes(found)
            (tmp_path / name).chmod(0o600)
        found_again = ring(tmp_path)
        assert found_again.trusted == announced
        if found_again.coming is not None:
            found_again.promote()
        assert key_id(found_again.current.key.public_key()) == key_id(coming.key.public_key())
        assert found_again.trusted == announced
        assert found_again.retired_key is not None
