"""What follows of TUF's files in one answer: asked for once a check, and judged as ever."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Root, Targets, Timestamp
from tuf.ngclient.fetcher import FetcherInterface

from cloud_sync.address import http_client
from cloud_sync.device_api import DeviceAuth
from cloud_sync.metadata_error import MetadataError
from cloud_sync.trust.fetcher import HttpxFetcher
from cloud_sync.trust.releases import ReleaseTrust
from cloud_sync.trust.together import MAX_BYTES, Together
from edgeml.errors import TrustError
from fleet.trust.changes import RoleKeys
from fleet.trust.following import FollowingFiles
from fleet.trust.store import Store
from tests.cloud_sync.trust.simulator import NOW, SIM, RepositorySimulator

V1, V2 = (f"sha256:{letter * 64}" for letter in "ab")


class Repository(FetcherInterface):
    """A fleet's files, filled by a simulator; `gives` says whether it gives them together."""

    def __init__(self, folder: Path, *, gives: bool = True) -> None:
        self.sim = RepositorySimulator()
        self.store = Store(folder)
        self.asked: list[str] = []
        self._following = FollowingFiles(self.store)
        self._gives = gives
        self.publish()

    def publish(self, *changed: str) -> None:
        sim = self.sim
        sim.publish(*changed)
        for number, root in enumerate(sim.roots, 1):
            self.store.publish(Root.type, number, root)
        self.store.publish("snapshot", sim.snapshot.version, sim.published["snapshot"])
        self.store.publish(Targets.type, sim.targets.version, sim.published[Targets.type])
        self.store.publish(Timestamp.type, 0, sim.published[Timestamp.type])

    def release(self, version: str, digest: str) -> None:
        self.sim.sign(f"digits/{version}", digest)
        self.publish(Targets.type)

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix(f"{SIM}/")
        self.asked.append(path)
        found = self._following.answer(path) if self._gives else None
        found = found or self.store.file(path)
        if found is None:
            raise DownloadHTTPError("not found", 404)
        return iter((found,))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def trust_of(repository: Repository, folder: Path) -> ReleaseTrust:
    fetcher = Together(repository, SIM, folder / "metadata")
    return ReleaseTrust(folder, repository.sim.roots[0], lambda: NOW, fetcher, SIM)


def test_each_check_asks_once(repository: Repository, tmp_path: Path) -> None:
    repository.release("1.0.0", V1)
    device = trust_of(repository, tmp_path / "device")
    device.check("digits", "1.0.0", V1)
    device.check("digits", "1.0.0", V1)
    assert repository.asked == ["following/2/0", "following/2/2"]
    repository.release("2.0.0", V2)
    device.check("digits", "2.0.0", V2)
    assert repository.asked[2:] == ["following/2/2"]
    with pytest.raises(TrustError, match="Nobody who may sign it"):
        device.check("digits", "3.0.0", V1)


def test_roots_that_follow_come_along(repository: Repository, tmp_path: Path) -> None:
    device = trust_of(repository, tmp_path / "device")
    for role in (Root.type, Targets.type):
        old = repository.sim.rotate(role)
        repository.sim.publish_root([old] if role == Root.type else [])
    repository.release("1.0.0", V1)
    device.check("digits", "1.0.0", V1)
    assert repository.asked == ["following/2/0"]
    device.check("digits", "1.0.0", V1)
    assert repository.asked[1:] == ["following/4/2"]


def test_a_fleet_that_does_not_give_them_together_is_asked_as_ever(tmp_path: Path) -> None:
    older = Repository(tmp_path / "repository", gives=False)
    older.release("1.0.0", V1)
    device = trust_of(older, tmp_path / "device")
    device.check("digits", "1.0.0", V1)
    names = [f"metadata/{name}.json" for name in ("2.root", "timestamp", "2.snapshot", "2.targets")]
    assert older.asked == ["following/2/0", *names]
    device.check("digits", "1.0.0", V1)
    assert older.asked[5:] == names[:2]


def test_what_is_forged_in_it_is_refused(repository: Repository, tmp_path: Path) -> None:
    device = trust_of(repository, tmp_path / "device")
    forged = Metadata.from_bytes(repository.sim.published[Timestamp.type])
    forged.signed.version += 7
    repository.store.publish(Timestamp.type, 0, forged.to_bytes())
    with pytest.raises(MetadataError):
        device.check("digits", "1.0.0", V1)
    assert repository.asked == ["following/2/0"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"root":1,"files":{}}',
        b" " * (5 * MAX_BYTES),
        b'{"more":' + b"[" * MAX_BYTES,
    ],
    ids=["nothing", "another thing", "no text", "empty", "too long", "too deep"],
)
def test_an_answer_that_is_of_no_use_costs_nothing_but_itself(
    repository: Repository, tmp_path: Path, answer: bytes
) -> None:
    repository.release("1.0.0", V1)

    class Useless(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            return iter((answer,)) if "/following/" in url else repository.fetch(url)

    folder = tmp_path / "device"
    fetcher = Together(Useless(), SIM, folder / "metadata")
    device = ReleaseTrust(folder, repository.sim.roots[0], lambda: NOW, fetcher, SIM)
    device.check("digits", "1.0.0", V1)


def test_what_is_too_large_to_go_along_is_fetched_by_itself(
    repository: Repository, tmp_path: Path
) -> None:
    for number in range(10_000):
        repository.sim.sign(f"digits/{number}.0.0", V1)
    repository.publish(Targets.type)
    assert len(repository.sim.published[Targets.type]) > MAX_BYTES
    trust_of(repository, tmp_path / "device").check("digits", "7.0.0", V1)
    assert repository.asked == ["following/2/0", "metadata/2.targets.json"]


@pytest.mark.parametrize(
    "path",
    [
        *("following/2", "following/x/0", "following/2/0/1", "following/"),
        *("following/0/0", "following/3/0", "following/999999999/0"),
    ],
)
def test_what_is_no_such_question_has_no_answer(repository: Repository, path: str) -> None:
    assert FollowingFiles(repository.store).answer(path) is None


def test_questions_that_mean_the_same_are_answered_once(repository: Repository) -> None:
    files = FollowingFiles(repository.store)
    newer, none = files.answer("following/2/0"), files.answer("following/2/1")
    assert newer != none
    assert files.answer("following/0002/1") is none
    assert files.answer("following/2/999999999999") is none
    repository.release("1.0.0", V1)
    assert files.answer("following/2/1") not in {newer, none}


def test_a_fleet_gives_them_to_an_enrolled_device(
    fleet: Any, make_device: Callable[..., Any], release_folder: Path, tmp_path: Path
) -> None:
    fleet.client.trust_init(RoleKeys(), RoleKeys())
    pushed = fleet.client.push(release_folder)
    made = make_device()
    url, asked = f"{made.base_url}/device/v1/trust", []
    auth = DeviceAuth(made.device, made.key)
    with http_client(made.base_url, auth, httpx.Timeout(30.0), of="fleet") as client:
        client.event_hooks["response"].append(
            lambda answer: asked.append((answer.status_code, str(answer.url).removeprefix(url)))
        )
        fetcher = Together(HttpxFetcher(client), url, tmp_path / "metadata")
        root = made.enrolled.root.encode()
        device = ReleaseTrust(tmp_path, root, fleet.services.now, fetcher, url)
        device.check("digits", "1.0.0", pushed["digest"])
    number = Metadata.from_bytes(root).signed.version + 1
    assert [path for status, path in asked if status == 200] == [f"/following/{number}/0"]
