"""The fleet's repository: what is published always verifies, and stays fresh."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from cloud_sync.trust import PrivateKey, generate
from cloud_sync.trust.keys import public_pem
from edgeml.errors import EdgemlError, TrustError, UserError
from fleet.trust import Repository, changes
from fleet.trust.changes import RoleKeys
from fleet.trust.check import check
from fleet.trust.repository import DAY_S
from fleet.trust.status import show

V1, V2 = (f"sha256:{letter * 64}" for letter in "ab")
ONLINE = RoleKeys()


class Person:
    """Somebody with a key of their own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key: PrivateKey = generate()
        self.keyid = CryptoSigner(self.key).public_key.keyid

    @property
    def pem(self) -> str:
        return public_pem(self.key.public_key())

    def sign(self, repository: Repository, role: str) -> None:
        staged = repository.staged(role)
        assert staged is not None
        signature = CryptoSigner(self.key).sign(staged.signed_bytes)
        repository.add_signatures(role, {self.keyid: signature.signature})
        repository.publish()


def keys(*people: Person, threshold: int = 1) -> RoleKeys:
    return RoleKeys(keys={p.name: p.pem for p in people}, threshold=threshold)


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=1_700_000_000.0)


@pytest.fixture
def repository(tmp_path: Path, clock: SimpleNamespace) -> Repository:
    return Repository(tmp_path / "trust", lambda: clock.now)


@pytest.fixture
def people() -> tuple[Person, ...]:
    return tuple(Person(name) for name in ("alice", "bob", "carol"))


def online(repository: Repository) -> Repository:
    changes.init(repository, ONLINE, ONLINE, {"digits/1.0.0": (V1, 5)}, {})
    repository.publish()
    return repository


def release(repository: Repository, path: str, digest: str) -> None:
    changes.add_release(repository, path, digest, 5)
    repository.publish()


def test_keys_online_sign_at_once(repository: Repository) -> None:
    online(repository)
    release(repository, "digits/2.0.0", V2)
    check(repository, "digits", "1.0.0", V1)
    check(repository, "digits", "2.0.0", V2)
    with pytest.raises(TrustError):
        check(repository, "digits", "2.0.0", V1)
    assert show(repository)["state"] == "online"
    assert "not for production" in show(repository)["sentence"]


def test_nothing_is_published_before_a_first_root_has_its_signatures(
    repository: Repository, people: tuple[Person, ...]
) -> None:
    alice, bob, carol = people
    changes.init(repository, keys(alice, bob, threshold=2), keys(carol), {}, {})
    assert repository.publish() == ()
    alice.sign(repository, Root.type)
    carol.sign(repository, Targets.type)
    assert not repository.is_initialised
    assert show(repository)["state"] == "waiting"
    bob.sign(repository, Root.type)
    assert repository.is_initialised
    assert show(repository)["state"] == "offline"
    release(repository, "digits/1.0.0", V1)
    with pytest.raises(TrustError):
        check(repository, "digits", "1.0.0", V1)
    carol.sign(repository, Targets.type)
    check(repository, "digits", "1.0.0", V1)


def test_root_and_targets_are_taken_offline_by_rotation(
    repository: Repository, people: tuple[Person, ...]
) -> None:
    alice, bob, carol = people
    online(repository)
    changes.rotate(repository, Root.type, keys(alice, bob, threshold=2))
    changes.rotate(repository, Targets.type, keys(carol))
    assert repository.publish() == ()
    alice.sign(repository, Root.type)
    bob.sign(repository, Root.type)
    # The new root is good, but what it says of targets is not signed yet: neither is public.
    assert repository.published(Root.type).signed.version == 1
    check(repository, "digits", "1.0.0", V1)
    carol.sign(repository, Targets.type)
    assert repository.published(Root.type).signed.version == 2
    check(repository, "digits", "1.0.0", V1)
    assert show(repository)["state"] == "offline"
    release(repository, "digits/2.0.0", V2)
    with pytest.raises(TrustError):
        check(repository, "digits", "2.0.0", V2)
    # The keys that it held before are gone: it could not give them away if it were taken over.
    held = set(repository.store.signers())
    assert held == {k for role in ("snapshot", "timestamp") for k in repository.keys(role)}


@pytest.mark.parametrize("role", [Root.type, Targets.type, Snapshot.type, Timestamp.type])
def test_every_role_rotates_online(repository: Repository, role: str) -> None:
    online(repository)
    old = set(repository.root().roles[role].keyids)
    changes.rotate(repository, role, ONLINE)
    repository.publish()
    assert not old & set(repository.root().roles[role].keyids)
    check(repository, "digits", "1.0.0", V1)
    assert not repository.store.staged_roles()


def test_a_team_signs_its_models(repository: Repository, people: tuple[Person, ...]) -> None:
    alice, *_ = people
    online(repository)
    changes.delegate(repository, "vision", ["faces", "scenes-*"], keys(alice))
    repository.publish()
    alice.sign(repository, "vision")
    for path in ("faces/1.0.0", "scenes-night/1.0.0"):
        release(repository, path, V1)
        alice.sign(repository, "vision")
    release(repository, "digits/2.0.0", V2)
    check(repository, "faces", "1.0.0", V1)
    check(repository, "scenes-night", "1.0.0", V1)
    check(repository, "digits", "2.0.0", V2)
    bob = people[1]
    changes.rotate(repository, "vision", keys(bob))
    repository.publish()
    check(repository, "faces", "1.0.0", V1)
    bob.sign(repository, "vision")
    check(repository, "faces", "1.0.0", V1)
    release(repository, "faces/2.0.0", V2)
    with pytest.raises(TrustError):
        alice.sign(repository, "vision")
    bob.sign(repository, "vision")
    check(repository, "faces", "2.0.0", V2)


def test_a_change_gives_up_the_signatures_before_it(
    repository: Repository, people: tuple[Person, ...]
) -> None:
    alice, bob, _ = people
    changes.init(repository, ONLINE, keys(alice, bob, threshold=2), {}, {})
    repository.publish()
    alice.sign(repository, Targets.type)
    signature = CryptoSigner(bob.key).sign(repository.staged(Targets.type).signed_bytes)
    release(repository, "digits/1.0.0", V1)
    with pytest.raises(TrustError, match="changed meanwhile"):
        repository.add_signatures(Targets.type, {bob.keyid: signature.signature})
    assert repository.verification(Targets.type)[0].missing == 2


def test_a_strangers_signature_is_refused(
    repository: Repository, people: tuple[Person, ...]
) -> None:
    alice, bob, _ = people
    changes.init(repository, ONLINE, keys(alice), {}, {})
    with pytest.raises(TrustError, match="may not sign"):
        bob.sign(repository, Targets.type)
    with pytest.raises(TrustError, match="Nothing waits"):
        repository.add_signatures("vision", {})


def test_the_timestamp_never_expires_while_the_fleet_lives(
    repository: Repository, clock: SimpleNamespace
) -> None:
    online(repository)
    for _ in range(40):  # past the snapshot's life, too
        clock.now += 0.45 * DAY_S
        repository.refresh()
        check(repository, "digits", "1.0.0", V1)


def test_root_and_targets_online_are_renewed_in_time(
    repository: Repository, clock: SimpleNamespace
) -> None:
    online(repository)
    for _ in range(4):
        clock.now += 280 * DAY_S
        repository.refresh()
        check(repository, "digits", "1.0.0", V1)
    assert repository.published(Root.type).signed.version == 5


def test_what_is_fresh_is_left_as_it_is(repository: Repository, clock: SimpleNamespace) -> None:
    online(repository)
    before = repository.store.published(Timestamp.type)
    clock.now += DAY_S / 4
    assert repository.refresh() == ()
    assert repository.store.published(Timestamp.type) == before


def test_a_fleet_that_was_down_for_a_month_is_fresh_when_it_is_up(
    repository: Repository, clock: SimpleNamespace
) -> None:
    online(repository)
    clock.now += 30 * DAY_S
    with pytest.raises(TrustError, match="expired"):
        check(repository, "digits", "1.0.0", V1)
    repository.refresh()
    check(repository, "digits", "1.0.0", V1)


def test_lists_signed_offline_are_warned_of_before_they_expire(
    repository: Repository, clock: SimpleNamespace, people: tuple[Person, ...]
) -> None:
    alice, *_ = people
    changes.init(repository, ONLINE, keys(alice), {}, {})
    alice.sign(repository, Targets.type)
    assert show(repository)["warnings"] == []
    clock.now += 320 * DAY_S
    repository.refresh()
    (warning,) = show(repository)["warnings"]
    assert "targets expires" in warning
    assert "--role targets" in warning
    with repository.edit(Targets.type):
        pass
    alice.sign(repository, Targets.type)
    assert show(repository)["warnings"] == []


def test_versions_of_a_restored_fleet_are_above_those_that_devices_have_seen(
    repository: Repository, clock: SimpleNamespace, tmp_path: Path
) -> None:
    online(repository)
    before = Metadata.from_bytes(repository.store.published(Timestamp.type)).signed.version
    clock.now += 10 * DAY_S
    repository.refresh()
    assert Metadata.from_bytes(repository.store.published(Timestamp.type)).signed.version >= (
        before + 10 * DAY_S
    )


@pytest.mark.parametrize("lost", ["metadata/timestamp.json", "metadata/*.snapshot.json"])
def test_a_publication_that_was_cut_short_is_finished(repository: Repository, lost: str) -> None:
    online(repository)
    changes.add_release(repository, "digits/2.0.0", V2, 5)
    kept = {path: path.read_bytes() for path in repository.store.folder.glob("*/*.json")}
    repository.publish()
    for path in repository.store.folder.glob(lost):
        path.write_bytes(kept[path]) if path in kept else path.unlink()
    for path, data in kept.items():
        if path.parent.name == "staged":
            path.write_bytes(data)
    repository.refresh()
    check(repository, "digits", "2.0.0", V2)
    check(repository, "digits", "1.0.0", V1)


def test_lost_online_keys_are_said_and_replaced(repository: Repository) -> None:
    online(repository)
    for keyid in repository.root().roles[Timestamp.type].keyids:
        (repository.store.folder / "keys" / f"{keyid}.key").unlink()
    changes.add_release(repository, "digits/2.0.0", V2, 5)
    with pytest.raises(TrustError, match="edgeml trust rotate timestamp"):
        repository.publish()
    changes.rotate(repository, Timestamp.type, ONLINE)
    repository.publish()
    check(repository, "digits", "2.0.0", V2)


def test_old_versions_do_not_pile_up(repository: Repository) -> None:
    online(repository)
    for number in range(10):
        release(repository, f"digits/3.0.{number}", V2)
    names = [path.name for path in (repository.store.folder / "metadata").iterdir()]
    assert len([name for name in names if "targets" in name]) == 3
    assert len([name for name in names if "root" in name]) == 1


def test_keys_of_the_fleet_are_closed_to_others(repository: Repository) -> None:
    online(repository)
    folder = repository.store.folder / "keys"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "path",
    [
        "keys/a.key",
        "staged/targets.json",
        "metadata/../keys/a.key",
        "metadata/..%2fkeys/a.key",
        "metadata//etc/hostname",
        "/etc/hostname",
        "targets/_fleet/../../keys/a.key",
        "metadata/./timestamp.json",
        "metadata",
        "metadata/",
        "",
        "metadata/timestamp.json\n",
    ],
)
def test_nothing_but_what_is_public_is_served(repository: Repository, path: str) -> None:
    online(repository)
    folder = repository.store.folder
    for name in ("keys/a.key", "staged/targets.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("secret")
    assert repository.store.file(path) is None
    assert repository.store.file("metadata/timestamp.json")


def test_signatures_are_taken_for_what_waits_alone(repository: Repository) -> None:
    online(repository)
    for role in ("../metadata/1.root", "root", "/etc/hostname", ""):
        with pytest.raises(TrustError, match="Nothing waits"):
            repository.add_signatures(role, {})


@pytest.mark.parametrize(
    "change",
    [
        lambda r, p: changes.init(r, ONLINE, ONLINE, {}, {}),
        lambda r, p: changes.rotate(r, "nobody", keys(p)),
        lambda r, p: changes.rotate(r, "timestamp", keys(p)),
        lambda r, p: changes.rotate(r, "root", keys(p, threshold=2)),
        lambda r, p: changes.add_key(r, "targets", keys(p, threshold=3)),
        lambda r, p: changes.delegate(r, "targets", ["faces"], keys(p)),
        lambda r, p: changes.delegate(r, "vision", ["*"], keys(p)),
        lambda r, p: changes.delegate(r, "vision", ["_fleet"], keys(p)),
        lambda r, p: changes.delegate(r, "../x", ["faces"], keys(p)),
        lambda r, p: changes.rotate(r, "root", RoleKeys(keys={"a": p.pem, "b": p.pem})),
        lambda r, p: changes.rotate(r, "root", RoleKeys(keys={"a": "no key"})),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_leaves_nothing(
    repository: Repository, people: tuple[Person, ...], change: object
) -> None:
    online(repository)
    assert callable(change)
    with pytest.raises(EdgemlError):
        change(repository, people[0])
    assert repository.store.staged_roles() == []


def test_a_second_key_needs_both(repository: Repository, people: tuple[Person, ...]) -> None:
    alice, *_ = people
    online(repository)
    changes.add_key(repository, Targets.type, keys(alice, threshold=2))
    repository.publish()
    release(repository, "digits/2.0.0", V2)
    with pytest.raises(TrustError):
        check(repository, "digits", "2.0.0", V2)
    alice.sign(repository, Targets.type)
    check(repository, "digits", "2.0.0", V2)


def test_one_more_key_leaves_the_threshold_as_it_is(
    repository: Repository, people: tuple[Person, ...]
) -> None:
    alice, bob, carol = people
    changes.init(repository, ONLINE, keys(alice, bob, threshold=2), {}, {})
    changes.add_key(repository, Targets.type, RoleKeys(keys={"carol": carol.pem}, threshold=0))
    assert repository.root().roles[Targets.type].threshold == 2
    assert len(repository.root().roles[Targets.type].keyids) == 3


def test_init_twice_is_refused(repository: Repository) -> None:
    online(repository)
    with pytest.raises(UserError, match="rotate root"):
        changes.init(repository, ONLINE, ONLINE, {}, {})


def test_a_release_waits_for_a_rotation_that_waits(
    repository: Repository, people: tuple[Person, ...]
) -> None:
    alice, bob, _ = people
    online(repository)
    changes.rotate(repository, Root.type, keys(alice))
    changes.rotate(repository, Targets.type, keys(bob))
    release(repository, "digits/2.0.0", V2)
    with pytest.raises(TrustError):
        check(repository, "digits", "2.0.0", V2)
    bob.sign(repository, Targets.type)
    alice.sign(repository, Root.type)
    check(repository, "digits", "2.0.0", V2)


def test_what_waits_can_be_given_up(repository: Repository, people: tuple[Person, ...]) -> None:
    online(repository)
    changes.rotate(repository, Root.type, keys(people[0]))
    assert repository.publish() == ()
    assert repository.discard() == ("root",)
    release(repository, "digits/2.0.0", V2)
    check(repository, "digits", "2.0.0", V2)
