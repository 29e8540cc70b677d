"""Wrong bits where TUF's metadata should be: asked for again, and refused if they stay wrong."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import msgspec
import pytest
from tuf.api.metadata import Targets, Timestamp

from cloud_sync.messages import DesiredModel, Phase, SecurityRecord
from cloud_sync.release import Release
from cloud_sync.update_machine import Event, ModelState, Wanted, step
from cloud_sync.windows import HELD
from edge_agent.choices import Choices
from edge_agent.registries import Registries, RegistrySettings
from edge_agent.store import ReleaseStore
from edge_agent.trust.identity import load_identity
from edge_agent.trust.release_trust import ReleaseCheck
from edge_agent.update import driver
from edge_agent.update.driver import UpdateDriver
from edge_agent.update.fetching import Interrupted
from edge_agent.update.hooks import Hooks
from hardware.probes import probe
from tests.cloud_sync.registries import Shelf, running
from tests.cloud_sync.releases import make_release
from tests.cloud_sync.trust.simulator import NOW, RepositorySimulator, served
from tests.edge_agent.scene import Scene

TIMESTAMP = "metadata/timestamp.json"
GARBAGE = b"<html>Sign in to this network</html>"


class Updated:
    """A model's real driver, and all that it journals and tells."""

    def __init__(self, folder: Path, shelf: Shelf, check: ReleaseCheck) -> None:
        self.state = ModelState()
        self.reasons: list[str] = []
        self.closed: Callable[[], str] = str
        capabilities = probe()
        self.driver = UpdateDriver(
            "toy",
            store=ReleaseStore(folder / "releases"),
            registry=lambda sleep: Registries(
                lambda: RegistrySettings(fleet_url=shelf.url), None, sleep=sleep
            ),
            capabilities=capabilities,
            choices=Choices(folder / "choices.json", capabilities),
            device="cam-1",
            hooks=Hooks(
                apply=self.apply,
                evidence=lambda _evidence: None,
                go_live=lambda _model, _release: None,
                retire=lambda _model: None,
                stuck_s=lambda _model: 0.0,
                abandon=lambda _model: None,
                running=lambda _model: None,
                site=lambda _model: {},
                version=lambda: (1, 1),
                trusted=check,
                closed=lambda: self.closed(),
            ),
        )

    def apply(self, _model: str, event: Event) -> ModelState:
        self.state = step(self.state, event)
        self.reasons.append(self.state.reason)
        return self.state

    def turn_until(self, holds: Callable[[ModelState], bool]) -> ModelState:
        end = time.monotonic() + 30
        while not holds(self.state):
            assert time.monotonic() < end, self.state
            self.state = self.driver.turn(self.state)
            time.sleep(0.002)
        return self.state


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, dict[str, bytes]]:
    layout, made = make_release(tmp_path_factory.mktemp("made"))
    blobs = {f"sha256:{p.name}": p.read_bytes() for p in layout.folder.glob("blobs/sha256/*")}
    return made, blobs


@pytest.fixture
def sim(release: tuple[Release, dict[str, bytes]]) -> RepositorySimulator:
    sim = RepositorySimulator()
    sim.sign("toy/1.0.0", release[0].digest)
    sim.publish(Targets.type)
    return sim


@pytest.fixture
def told() -> list[SecurityRecord]:
    return []


@pytest.fixture
def updated(
    scene: Scene,
    sim: RepositorySimulator,
    release: tuple[Release, dict[str, bytes]],
    told: list[SecurityRecord],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Updated]:
    monkeypatch.setattr(driver, "RETRY_S", (0.01, 0.02))
    monkeypatch.setattr(driver, "LOOK_S", (0.01, 0.02))
    made, blobs = release
    with ExitStack() as stack:
        shelf = stack.enter_context(running(Shelf()))
        shelf.content.update(blobs)
        url = stack.enter_context(served(sim, below="/device/v1/trust"))
        enrolled = load_identity(scene.config)
        config = msgspec.structs.replace(enrolled.config, fleet_url=url)
        identity = msgspec.structs.replace(enrolled, config=config, root=sim.roots[0])
        auth = httpx.BasicAuth("any", "thing")
        check = ReleaseCheck(identity, lambda: auth, lambda: NOW, told.append)
        stack.enter_context(closing(check))
        device = Updated(tmp_path / "device", shelf, check)
        stack.enter_context(closing(device.driver))
        wanted = DesiredModel(
            release=made.digest, variant=made.variants[0].digest, release_version="1.0.0"
        )
        device.apply("toy", Wanted(desired=wanted))
        yield device


def garbled(sim: RepositorySimulator, times: int) -> None:
    """Have the next answers about the timestamp be a captive portal's."""
    left = [times]

    def answer() -> list[bytes]:
        left[0] -= 1
        return [GARBAGE] if left[0] >= 0 else [sim.published[Timestamp.type]]

    sim.answers[TIMESTAMP] = answer


def test_what_comes_damaged_for_a_while_is_asked_for_again_and_installed(
    updated: Updated, sim: RepositorySimulator
) -> None:
    garbled(sim, 4)  # two for each time that the device asks
    state = updated.turn_until(lambda state: state.phase is not Phase.RESOLVING)
    assert state.phase is Phase.DOWNLOADING
    assert "is said to have signed was refused" in updated.reasons[1]
    assert state.reason == ""


def test_what_stays_forged_is_refused_with_its_cause_and_told_once(
    updated: Updated, sim: RepositorySimulator, told: list[SecurityRecord]
) -> None:
    garbled(sim, 1_000_000)
    state = updated.turn_until(lambda state: state.phase is not Phase.RESOLVING)
    assert state.phase is Phase.REFUSED
    assert "is said to have signed was refused" in state.reason
    assert f"{driver.METADATA_ATTEMPTS} times" in state.reason
    assert sim.asked.count(TIMESTAMP) >= driver.METADATA_ATTEMPTS
    asked = sim.asked.count(TIMESTAMP)
    updated.turn_until(lambda _: sim.asked.count(TIMESTAMP) > asked + 4)
    assert updated.state.phase is Phase.REFUSED
    assert len(told) == 1


def test_a_refused_one_is_taken_up_again_by_itself_once_the_metadata_are_whole(
    updated: Updated, sim: RepositorySimulator
) -> None:
    garbled(sim, 1_000_000)
    updated.turn_until(lambda state: state.phase is Phase.REFUSED)
    del sim.answers[TIMESTAMP]
    updated.turn_until(lambda state: state.phase is Phase.DOWNLOADING)


def test_what_nobody_signed_is_refused_at_once_and_not_asked_for_again(
    updated: Updated, sim: RepositorySimulator
) -> None:
    del sim.targets.targets["toy/1.0.0"]
    sim.publish(Targets.type)
    state = updated.turn_until(lambda state: state.phase is Phase.REFUSED)
    assert "Nobody who may sign it has" in state.reason
    assert not state.lacking
    assert sim.asked.count(TIMESTAMP) == 1


def test_what_turns_out_to_be_unsigned_is_refused_for_that_and_no_longer_looked_at(
    updated: Updated, sim: RepositorySimulator
) -> None:
    garbled(sim, 1_000_000)
    updated.turn_until(lambda state: state.phase is Phase.REFUSED)
    del sim.targets.targets["toy/1.0.0"]
    sim.publish(Targets.type)
    del sim.answers[TIMESTAMP]
    state = updated.turn_until(lambda state: "Nobody who may sign it has" in state.reason)
    assert (state.phase, state.lacking) == (Phase.REFUSED, False)


def test_a_window_that_closes_interrupts_a_download_and_the_next_one_ends_it(
    updated: Updated,
) -> None:
    looks = iter([""])  # the first look is that at the beginning of the turn
    updated.turn_until(lambda state: state.phase is Phase.DOWNLOADING)
    updated.closed = lambda: next(looks, HELD)
    with pytest.raises(Interrupted):
        updated.turn_until(lambda state: state.phase is not Phase.DOWNLOADING)
    updated.turn_until(lambda state: state.reason == HELD)
    assert updated.state.phase is Phase.DOWNLOADING
    updated.closed = str
    updated.turn_until(lambda state: state.phase is Phase.VERIFYING)
