"""Deltas, the ledger and the budget together: what fails is never paid for in silence."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloud_sync.delta import MAX_BYTES, MIN_BYTES, DeltaOffer, DeltaOffers
from cloud_sync.delta_making import make
from cloud_sync.messages import Cause, DataBudget, DesiredModel, LedgerEntry
from cloud_sync.release import Release, Variant, digest_of
from edge_agent.budget import BudgetSpent
from edge_agent.ledger import Ledger
from edge_agent.registries import Registries, RegistrySettings
from edge_agent.store import ReleaseStore
from edge_agent.update import fetching
from edge_agent.update.deltas import Deltas
from edge_agent.update.fetching import Fetcher, Interrupted
from edgeml.errors import RemoteError
from tests.cloud_sync.registries import Shelf, running
from tests.cloud_sync.releases import make_release

SIZE = 400_000


class Scene:
    """A device that has the model's version before, and a registry with a delta to the next."""

    def __init__(self, folder: Path, shelf: Shelf, release: Release) -> None:
        self.shelf = shelf
        self.budget = DataBudget()
        self.store = ReleaseStore(folder / "releases")
        random = np.random.default_rng(1)
        before = random.integers(0, 256, SIZE, np.uint8)
        after = before.copy()
        after[1000:3000] = 7
        other = random.integers(0, 256, SIZE, np.uint8)
        self.base = self.store.blobs.put(before.tobytes())
        self.target = digest_of(after.tobytes())
        shelf.content[self.target] = after.tobytes()
        self.good = self._delta(folder, before, after)
        self.bad = self._delta(folder, before, other, to=after)
        self.offer: DeltaOffer | None = self.good
        model = next(file for file in release.variants[0].files if file.role == "model")
        file = msgspec.structs.replace(model, digest=self.target, size=SIZE)
        self.variant: Variant = msgspec.structs.replace(release.variants[0], files=(file,))
        self.desired = DesiredModel(
            release=release.digest, variant=self.variant.digest, release_version="1", rollout="r1"
        )
        self.ledger = Ledger(folder / "ledger.db", lambda: self.budget)
        self.wake = threading.Event()
        self.fetcher = Fetcher(
            "toy",
            self.store,
            lambda sleep: Registries(
                lambda: RegistrySettings(fleet_url=shelf.url), None, sleep=sleep
            ),
            self.wake,
            ledger=self.ledger,
            deltas=Deltas(self.store, lambda _digest: msgspec.json.encode(self._offers())),
        )

    def _delta(
        self, folder: Path, before: np.ndarray, after: np.ndarray, to: np.ndarray | None = None
    ) -> DeltaOffer:
        old, new, delta = folder / "before", folder / "after", folder / "delta"
        old.write_bytes(before.tobytes())
        new.write_bytes(after.tobytes())
        make(old, new, delta)
        data = delta.read_bytes()
        if to is not None:
            data = data[: len(data) // 8]  # spoilt, and small enough to be worth it
        self.shelf.content[digest_of(data)] = data
        return DeltaOffer(base=self.base, digest=digest_of(data), size=len(data))

    def _offers(self) -> DeltaOffers:
        return DeltaOffers(offers=(self.offer,) if self.offer else ())

    def fetch(self) -> None:
        self.fetcher.files(self.desired, self.variant)

    def spent(self) -> dict[Cause, LedgerEntry]:
        return {entry.cause: entry for entry in self.ledger.entries()}

    def close(self) -> None:
        self.fetcher.close()
        self.ledger.close()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("made"))[1]


@pytest.fixture
def scene(tmp_path: Path, release: Release) -> Iterator[Scene]:
    with ExitStack() as stack:
        shelf = stack.enter_context(running(Shelf()))
        yield stack.enter_context(closing(Scene(tmp_path, shelf, release)))


def test_a_delta_is_fetched_in_place_of_the_whole(scene: Scene) -> None:
    scene.fetch()
    scene.store.blobs.verify(scene.target)
    spent = scene.spent()
    assert set(spent) == {Cause.DELTA}
    assert scene.good.size < spent[Cause.DELTA].received < SIZE / 4
    assert not scene.store.blobs.has(scene.good.digest)


def test_a_delta_that_fails_is_counted_and_the_whole_fetched_where_the_budget_allows(
    scene: Scene,
) -> None:
    scene.offer = scene.bad
    scene.fetch()
    scene.store.blobs.verify(scene.target)
    spent = scene.spent()
    assert spent[Cause.DELTA].failures == 1
    assert spent[Cause.DELTA].note
    assert spent[Cause.FULL].received > SIZE


def test_a_delta_that_fails_never_becomes_a_full_download_that_nobody_allowed(
    scene: Scene,
) -> None:
    scene.offer = scene.bad
    scene.budget = DataBudget(rollout_bytes=SIZE)
    with pytest.raises(BudgetSpent, match=r"0\.45 MB are needed"):
        scene.fetch()
    with pytest.raises(BudgetSpent):
        scene.fetch()
    assert set(scene.spent()) == {Cause.DELTA}
    assert scene.spent()[Cause.DELTA].failures == 1, "it is not tried again"
    assert scene.ledger.spent() <= SIZE
    scene.budget = DataBudget(rollout_bytes=2 * SIZE)
    scene.fetch()
    scene.store.blobs.verify(scene.target)


def test_a_registry_that_lacks_the_delta_is_no_leave_to_fetch_the_whole(scene: Scene) -> None:
    del scene.shelf.content[scene.good.digest]
    with pytest.raises(RemoteError, match="lacks it"):
        scene.fetch()
    assert Cause.FULL not in scene.spent()


def test_a_budget_of_the_policy_holds_before_a_byte_of_the_delta(scene: Scene) -> None:
    scene.desired = msgspec.structs.replace(scene.desired, data_budget_bytes=1000)
    with pytest.raises(BudgetSpent, match="of the rollout r1"):
        scene.fetch()
    assert scene.spent() == {}


def test_a_download_that_is_interrupted_is_charged_for_what_it_brought(scene: Scene) -> None:
    scene.wake.set()
    scene.offer = msgspec.structs.replace(scene.good, base="sha256:" + "0" * 64)
    with pytest.raises(Interrupted):
        scene.fetch()
    brought = scene.store.blobs.part(scene.target).stat().st_size
    assert 0 < brought <= scene.spent()[Cause.FULL].received
    scene.wake.clear()
    scene.fetch()
    scene.store.blobs.verify(scene.target)
    assert scene.spent()[Cause.FULL].received < 2 * SIZE


def test_the_fleet_is_not_asked_for_deltas_to_small_files(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(digest: str) -> None:
        asked.append(digest)

    deltas = Deltas(ReleaseStore(tmp_path), ask)
    digest = "sha256:" + 64 * "0"
    for size in (0, MIN_BYTES - 1, MAX_BYTES + 1):
        assert deltas.offer(digest, size) is None
    assert asked == []
    deltas.offer(digest, MIN_BYTES)
    assert asked == [digest]


def test_while_nobody_can_be_asked_for_a_delta_the_whole_is_not_fetched_either(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(_sleep: object) -> Registries:
        raise RemoteError("The fleet is not asked yet.")

    with monkeypatch.context() as early:
        early.setattr(scene.fetcher, "_connect", not_yet)
        with pytest.raises(RemoteError, match="not asked yet"):
            scene.fetch()
    scene.fetch()
    assert set(scene.spent()) == {Cause.DELTA}


def test_an_update_that_waits_for_its_budget_takes_a_delta_that_is_made_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.budget = DataBudget(rollout_bytes=SIZE // 4)
    scene.offer = None
    for _ in range(2):
        with pytest.raises(BudgetSpent):
            scene.fetch()
    scene.offer = scene.good
    with pytest.raises(BudgetSpent):
        scene.fetch()  # what the fleet said holds for a while
    monkeypatch.setattr(fetching, "ASK_AGAIN_S", -1.0)
    scene.fetch()
    assert set(scene.spent()) == {Cause.DELTA}
