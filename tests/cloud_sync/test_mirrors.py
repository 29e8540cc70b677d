"""Mirrors and site caches: any that has the bytes will do, one that has others is left."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cloud_sync.mirrors import AGAIN_S, Mirrors, split_address
from cloud_sync.release import Blobs
from cloud_sync.transfer import OciClient
from edgeml.errors import ReleaseError, RemoteError, UserError
from tests.cloud_sync.registries import DATA, DIGEST, FAULTS, FaultyRegistry, running


@pytest.fixture
def three() -> Iterator[list[FaultyRegistry]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running(FaultyRegistry())) for _ in range(3)]


class Scene:
    """Two mirrors and the fleet's registry, as a device asks them."""

    def __init__(self, registries: list[FaultyRegistry]) -> None:
        self.now = 0.0
        self.lies: list[tuple[str, str]] = []
        clients = [OciClient(r.url, attempts=1, sleep=lambda _s: None) for r in registries]
        self.mirrors = Mirrors(
            clients, lambda name, what: self.lies.append((name, what)), monotonic=lambda: self.now
        )

    def fetch(self, folder: Path) -> int:
        return self.mirrors.fetch_blob("m", DIGEST, len(DATA), Blobs(folder))


@pytest.fixture
def scene(three: list[FaultyRegistry]) -> Iterator[Scene]:
    made = Scene(three)
    with closing(made.mirrors):
        yield made


def asked(registries: list[FaultyRegistry]) -> list[int]:
    return [len(registry.ranges) for registry in registries]


def test_the_first_that_has_it_serves_it(
    scene: Scene, three: list[FaultyRegistry], tmp_path: Path
) -> None:
    assert scene.fetch(tmp_path) == len(DATA)
    assert asked(three) == [1, 0, 0]


def test_one_that_lacks_it_is_left_for_the_next_and_asked_again_later(
    scene: Scene, three: list[FaultyRegistry], tmp_path: Path
) -> None:
    three[0].fault = "404"
    scene.fetch(tmp_path / "a")
    scene.fetch(tmp_path / "b")
    assert asked(three) == [1, 2, 0]
    scene.now = AGAIN_S
    three[0].fault = ""
    scene.fetch(tmp_path / "c")
    assert asked(three) == [2, 2, 0]
    assert scene.lies == []


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_lies_is_left_for_good_and_named(
    scene: Scene, three: list[FaultyRegistry], tmp_path: Path, fault: str
) -> None:
    three[0].fault = fault
    assert scene.mirrors.document("m", DIGEST) == DATA
    scene.fetch(tmp_path)
    scene.now = 10 * AGAIN_S
    scene.fetch(tmp_path / "again")
    assert asked(three) == [1, 3, 0]
    [(name, what)] = scene.lies
    assert name == three[0].url
    assert DIGEST in what or "digest" in what


def test_what_one_began_another_goes_on_with(
    scene: Scene, three: list[FaultyRegistry], tmp_path: Path
) -> None:
    three[0].cut_at = 200_000
    assert scene.fetch(tmp_path) == len(DATA) - Blobs(tmp_path).path(DIGEST).stat().st_size + len(
        DATA
    ) - int(three[1].ranges[0].removeprefix("bytes=").removesuffix("-"))
    assert three[1].ranges[0].startswith("bytes=")
    assert Blobs(tmp_path).read(DIGEST, len(DATA)) == DATA


def test_an_honest_one_is_not_blamed_for_what_a_liar_began(
    scene: Scene, three: list[FaultyRegistry], tmp_path: Path
) -> None:
    three[0].fault, three[0].cut_at = "swapped", 200_000
    scene.fetch(tmp_path)
    assert Blobs(tmp_path).read(DIGEST, len(DATA)) == DATA
    assert scene.lies == [], "nobody can tell yet who it was"
    assert three[1].ranges[1:] == [""], "begun anew, at the same one"


def test_where_none_has_it_each_is_named(
    scene: Scene, three: list[FaultyRegistry], tmp_path: Path
) -> None:
    for registry in three:
        registry.fault = "404"
    with pytest.raises(RemoteError, match="No registry has it") as error:
        scene.fetch(tmp_path)
    assert all(registry.url in error.value.why for registry in three)


def test_where_the_last_lies_it_is_said(
    scene: Scene, three: list[FaultyRegistry], tmp_path: Path
) -> None:
    for registry in three:
        registry.fault = "corrupt"
    with pytest.raises(ReleaseError):
        scene.fetch(tmp_path)
    assert len(scene.lies) == 3


def test_an_address_has_a_repository_after_its_host() -> None:
    assert split_address("https://r.example:5000/a/b/") == ("https://r.example:5000", "a/b")
    assert split_address("https://r.example") == ("https://r.example", "")
    with pytest.raises(UserError):
        split_address("http://host:port")
