"""The agent's check of a release: by real TUF metadata over HTTP, with the device's own token."""

from collections.abc import Iterator

import httpx
import msgspec
import pytest
from tuf.api.metadata import Targets

from cloud_sync.messages import SecurityKind, SecurityRecord
from edge_agent.trust.identity import Identity, load_identity
from edge_agent.trust.release_trust import ReleaseCheck
from edgeml.errors import RemoteError, TrustError
from tests.cloud_sync.trust.simulator import NOW, RepositorySimulator, served
from tests.edge_agent.scene import Scene

DIGEST = f"sha256:{'a' * 64}"


class Checked:
    """A check, and what the fleet is told of it."""

    def __init__(self, identity: Identity) -> None:
        self.told: list[SecurityRecord] = []
        self.auth: httpx.Auth | None = httpx.BasicAuth("any", "thing")
        self.check = ReleaseCheck(identity, lambda: self.auth, lambda: NOW, self.told.append)


@pytest.fixture
def sim() -> RepositorySimulator:
    sim = RepositorySimulator()
    sim.sign("toy/1.0.0", DIGEST)
    sim.publish(Targets.type)
    return sim


@pytest.fixture
def identity(scene: Scene, sim: RepositorySimulator) -> Iterator[Identity]:
    enrolled = load_identity(scene.config)
    with served(sim, below="/device/v1/trust") as url:
        config = msgspec.structs.replace(enrolled.config, fleet_url=url)
        yield msgspec.structs.replace(enrolled, config=config, root=sim.roots[0])


@pytest.fixture
def checked(identity: Identity) -> Iterator[Checked]:
    made = Checked(identity)
    yield made
    made.check.close()


def test_what_was_signed_passes_and_nothing_is_told(checked: Checked) -> None:
    checked.check("toy", "1.0.0", DIGEST)
    assert not checked.told


@pytest.mark.parametrize(
    ("version", "digest"), [("6.6.6", DIGEST), ("1.0.0", f"sha256:{'b' * 64}")]
)
def test_what_was_not_is_refused_and_the_fleet_is_told(
    checked: Checked, version: str, digest: str
) -> None:
    with pytest.raises(TrustError, match=f"The release toy:{version} was refused"):
        checked.check("toy", version, digest)
    [told] = checked.told
    assert told.kind is SecurityKind.UNTRUSTED_RELEASE
    assert (told.model, told.release) == ("toy", digest)
    assert f"toy:{version}" in told.detail


def test_a_fleet_that_cannot_be_asked_is_no_refusal(
    checked: Checked, sim: RepositorySimulator
) -> None:
    sim.published.clear()
    with pytest.raises(RemoteError):
        checked.check("toy", "1.0.0", DIGEST)
    checked.auth = None
    with pytest.raises(RemoteError):
        checked.check("toy", "1.0.0", DIGEST)
    assert not checked.told


def test_a_device_that_was_enrolled_without_a_root_checks_nothing(
    identity: Identity, sim: RepositorySimulator
) -> None:
    unsigned = Checked(msgspec.structs.replace(identity, root=None))
    unsigned.check("toy", "6.6.6", DIGEST)
    assert not sim.asked


def test_a_root_that_the_disk_emptied_lets_nothing_pass(identity: Identity) -> None:
    damaged = Checked(msgspec.structs.replace(identity, root=b""))
    with pytest.raises(TrustError):
        damaged.check("toy", "1.0.0", DIGEST)
