"""The releases on a device: verified, and nothing that no release refers to."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.release import Layout, Release
from edge_agent.store import ReleaseStore, litter
from edgeml.errors import DeviceError, ReleaseError
from tests.cloud_sync.releases import make_release


@pytest.fixture
def stored(tmp_path: Path) -> tuple[ReleaseStore, list[Release]]:
    store = ReleaseStore(tmp_path / "store")
    releases = []
    for seed in range(2):
        layout, release = make_release(tmp_path / str(seed), f"1.{seed}.0", seed=seed)
        copy(layout, store)
        releases.append(release)
    return store, releases


def copy(layout: Layout, store: ReleaseStore) -> None:
    for digest in layout.blobs.all():
        store.blobs.put_file(layout.blobs.path(digest))


def key(release: Release) -> tuple[str, str]:
    return release.digest, release.variants[0].digest


def test_only_what_is_wanted_stays(stored: tuple[ReleaseStore, list[Release]]) -> None:
    store, [first, second] = stored
    assert store.keep_only(lambda: [key(first), key(second)]) == 0
    assert store.keep_only(lambda: [key(second)]) > 0
    assert not store.blobs.has(first.digest)
    variant = store.variant(*key(second))
    for digest in store.needed(variant):
        store.blobs.verify(digest)


@given(
    keep=st.sets(st.integers(0, 9)),
    there=st.sets(st.integers(0, 9)),
    parts=st.sets(st.integers(0, 9)),
    others=st.sets(st.sampled_from([".new-abc", ".x", "notes.txt"])),
)
def test_what_is_kept_is_what_is_referred_to_and_its_download(
    keep: set[int], there: set[int], parts: set[int], others: set[str]
) -> None:
    def hexes(numbers: set[int]) -> set[str]:
        return {f"{number:064x}" for number in numbers}

    halves = {f".{name}.part" for name in hexes(parts)}
    gone = set(litter([*hexes(there), *halves, *others], {f"sha256:{n}" for n in hexes(keep)}))
    assert gone >= {name for name in others if name.startswith(".")}
    assert hexes(there) - gone == hexes(there & keep)
    assert halves - gone == {f".{name}.part" for name in hexes(parts & keep)}
    assert "notes.txt" not in gone  # nobody's


def test_what_a_crash_left_goes_and_a_download_to_resume_stays(
    stored: tuple[ReleaseStore, list[Release]],
) -> None:
    store, [first, second] = stored
    folder = store.blobs.path(first.digest).parent
    model = store.blobs.path(first.variants[0].file("model").digest)
    part = model.with_name(f".{model.name}.part")
    part.write_bytes(b"half")
    model.unlink()
    (folder / ".new-abc").write_bytes(b"x")
    (folder / f".{'0' * 64}.part").write_bytes(b"x")
    store.keep_only(lambda: [key(first), key(second)])
    assert [path.name for path in folder.glob(".*")] == [part.name]


def test_nothing_is_removed_while_a_wanted_release_cannot_be_read(
    stored: tuple[ReleaseStore, list[Release]],
) -> None:
    store, [first, second] = stored
    store.blobs.remove(second.variants[0].digest)
    before = list(store.blobs.all())
    with pytest.raises(ReleaseError):
        store.keep_only(lambda: [key(second)])
    assert list(store.blobs.all()) == before
    assert store.blobs.has(first.digest)


def test_nothing_is_removed_while_someone_is_at_work(
    stored: tuple[ReleaseStore, list[Release]],
) -> None:
    store, [first, second] = stored
    with store.in_use():
        assert store.keep_only(lambda: [key(second)]) is None
        assert store.blobs.has(first.digest)
    assert store.keep_only(lambda: [key(second)])


def test_one_at_a_time_fetches_a_blob_and_who_waits_may_give_up(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path)

    def pause(_seconds: float) -> None:
        raise InterruptedError

    with (
        store.alone_with("sha256:a", pause),
        store.alone_with("sha256:b", pause),
        pytest.raises(InterruptedError),
        store.alone_with("sha256:a", pause),
    ):
        pass
    with store.alone_with("sha256:a", pause):
        pass


def test_a_blob_that_the_disk_cannot_read_is_damaged(
    stored: tuple[ReleaseStore, list[Release]],
) -> None:
    store, [first, _] = stored
    digest = first.variants[0].file("model").digest
    # A process's own memory gives EIO to whoever reads it at 0, as a bad sector does.
    store.blobs.path(digest).unlink()
    store.blobs.path(digest).symlink_to("/proc/self/mem")
    with pytest.raises(ReleaseError, match="cannot be read"):
        store.check(digest)
    assert not store.blobs.has(digest)


def test_a_damaged_blob_is_removed_so_that_it_can_be_fetched_again(
    stored: tuple[ReleaseStore, list[Release]],
) -> None:
    store, [first, _] = stored
    digest = first.variants[0].file("model").digest
    store.blobs.path(digest).write_bytes(b"damaged")
    with pytest.raises(ReleaseError, match="damaged"):
        store.check(digest)
    assert not store.blobs.has(digest)
    store.blobs.path(first.digest).write_bytes(b"damaged")
    assert store.document(first.digest, 1 << 20) is None


def test_a_release_that_the_disk_has_no_room_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no room"):
        ReleaseStore(tmp_path).require_room(1 << 60)
