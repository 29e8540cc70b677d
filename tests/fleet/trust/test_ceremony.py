"""Whatever operators do in whatever order, a device that knows the first root follows."""

import datetime as dt
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Targets

from cloud_sync.trust import generate
from cloud_sync.trust.keys import public_pem
from cloud_sync.trust.releases import ReleaseTrust
from edgeml.errors import TrustError, UserError
from fleet.trust import Repository, changes
from fleet.trust.changes import RoleKeys
from fleet.trust.check import _URL, _Files
from fleet.trust.repository import DAY_S

ROLES = [Root.type, Targets.type, "snapshot", "timestamp", "vision"]
MODELS = ["digits", "faces"]
PEOPLE = {name: generate() for name in ("alice", "bob")}


class Ceremony(RuleBasedStateMachine):
    """Releases, rotations, signatures, days that pass; and a device that asks after each."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = SimpleNamespace(now=1_700_000_000.0)
        self.repository = Repository(self.folder / "fleet", lambda: self.clock.now)
        changes.init(self.repository, RoleKeys(), RoleKeys(), {"digits/0": (_digest(0), 5)}, {})
        self.repository.publish()
        root = self.repository.store.published(Root.type)
        assert root is not None
        self.device = ReleaseTrust(
            self.folder / "device",
            root,
            lambda: self.clock.now,
            _Files(self.repository.store),
            _URL,
        )
        self.released = 1

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(model=st.sampled_from(MODELS))
    def release(self, model: str) -> None:
        changes.add_release(self.repository, f"{model}/{self.released}", _digest(self.released), 5)
        self.repository.publish()
        self.released += 1

    @rule(
        role=st.sampled_from(ROLES),
        who=st.sets(st.sampled_from(sorted(PEOPLE))),
        both=st.booleans(),
    )
    def rotate(self, role: str, who: set[str], both: bool) -> None:
        threshold = 2 if both and len(who) > 1 else 1
        try:
            changes.rotate(self.repository, role, _keys(who, threshold))
        except UserError:
            return  # no such team yet, or the fleet's own role
        self.repository.publish()

    @precondition(lambda self: "vision" not in self.repository.teams())
    @rule(who=st.sets(st.sampled_from(sorted(PEOPLE))))
    def delegate(self, who: set[str]) -> None:
        changes.delegate(self.repository, "vision", ["faces"], _keys(who, 1))
        self.repository.publish()

    @rule(who=st.sampled_from(sorted(PEOPLE)))
    def sign(self, who: str) -> None:
        signer = CryptoSigner(PEOPLE[who])
        for role in self.repository.store.staged_roles():
            staged = self.repository.staged(role)
            if staged is not None and signer.public_key.keyid in self.repository.keys(role):
                made = signer.sign(staged.signed_bytes)
                self.repository.add_signatures(role, {made.keyid: made.signature})
        self.repository.publish()

    @rule(days=st.floats(0.1, 3.0))
    def time_passes(self, days: float) -> None:
        self.clock.now += days * DAY_S
        self.repository.refresh()

    @rule()
    def discard(self) -> None:
        self.repository.discard()

    @invariant()
    def the_device_takes_what_is_public_and_nothing_else(self) -> None:
        listed = self._listed()
        for number in range(self.released):
            for model in MODELS:
                try:
                    self.device.check(model, str(number), _digest(number))
                    taken = True
                except TrustError as error:
                    assert error.why == "Nobody who may sign it has."
                    taken = False
                assert taken == (f"{model}/{number}" in listed)

    @invariant()
    def nothing_that_is_published_twice_under_one_version(self) -> None:
        snapshot = self.repository.published("snapshot")
        assert snapshot is not None
        for name, meta in snapshot.signed.meta.items():
            data = self.repository.store.published(name.removesuffix(".json"), meta.version)
            assert data is not None
            meta.verify_length_and_hashes(data)
        assert snapshot.signed.expires > dt.datetime.fromtimestamp(self.clock.now, dt.UTC)

    def _listed(self) -> set[str]:
        found: set[str] = set()
        published = self.repository.published(Targets.type)
        assert published is not None
        delegations = published.signed.delegations
        for role in (Targets.type, *(delegations.roles if delegations else ())):
            listed = self.repository.published(role)
            found |= set(listed.signed.targets) if listed else set()
        return found


def _keys(who: set[str], threshold: int) -> RoleKeys:
    keys = {name: public_pem(PEOPLE[name].public_key()) for name in who}
    return RoleKeys(keys=keys, threshold=threshold)


def _digest(number: int) -> str:
    return f"sha256:{number:064x}"


Ceremony.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_a_device_follows_every_ceremony = Ceremony.TestCase
