"""Transfer over real HTTP, from a registry that can be told to misbehave."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from cloud_sync.evidence import Evidence, Verification
from cloud_sync.patience import ATTEMPTS, MAX_PAUSE_S
from cloud_sync.release import Blobs, Layout, Release, digest_of, read_evidence, write_evidence
from cloud_sync.transfer import OciClient
from cloud_sync.watch import Watch
from edgeml.errors import DeviceError, ReleaseError, RemoteError, UserError
from tests.cloud_sync.registries import DATA, DIGEST, FAULTS, FaultyRegistry, Shelf, running
from tests.cloud_sync.releases import make_release


class Secret(httpx.Auth):
    """Credentials for one host."""

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["Authorization"] = "secret"
        yield request


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with running(FaultyRegistry()) as made:
        yield made


@pytest.fixture
def client(registry: FaultyRegistry) -> Iterator[OciClient]:
    made = OciClient(registry.url, sleep=lambda _seconds: None)
    yield made
    made.close()


def fetch(client: OciClient, blobs: Blobs) -> int:
    return client.fetch_blob("m", DIGEST, len(DATA), blobs)


def test_a_blob_arrives_once(client: OciClient, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    assert fetch(client, blobs) == len(DATA)
    assert blobs.read(DIGEST, len(DATA)) == DATA
    assert fetch(client, blobs) == 0


def test_a_cut_download_goes_on_where_it_stopped(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.cut_at = 100_000
    blobs = Blobs(tmp_path)
    received = fetch(client, blobs)
    assert blobs.has(DIGEST)
    assert registry.ranges[0] == ""
    assert registry.ranges[1].startswith("bytes=")
    assert received == len(DATA), "no byte came twice"


def test_a_download_goes_on_after_a_restart(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    blobs = Blobs(tmp_path)
    part = blobs.path(DIGEST).with_name(f".{blobs.path(DIGEST).name}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:200_000])
    assert fetch(client, blobs) == len(DATA) - 200_000
    assert registry.ranges == ["bytes=200000-"]
    assert blobs.read(DIGEST, len(DATA)) == DATA


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_the_blob_is_refused_and_nothing_is_left(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path, fault: str
) -> None:
    registry.fault = fault
    blobs = Blobs(tmp_path)
    with pytest.raises(ReleaseError):
        fetch(client, blobs)
    assert not blobs.has(DIGEST)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_spoilt_start_is_found_out_and_the_blob_is_fetched_anew(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    blobs = Blobs(tmp_path)
    part = blobs.path(DIGEST).with_name(f".{blobs.path(DIGEST).name}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"X" * 1000)
    assert fetch(client, blobs) == 2 * len(DATA) - 1000
    assert registry.ranges == ["bytes=1000-", ""]
    assert blobs.read(DIGEST, len(DATA)) == DATA


def test_what_the_registry_lacks_is_asked_for_once(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.fault = "404"
    with pytest.raises(RemoteError, match="404"):
        fetch(client, Blobs(tmp_path))
    assert len(registry.ranges) == 1


def test_a_registry_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    client = OciClient("http://127.0.0.1:9", sleep=lambda _seconds: None)
    with pytest.raises(RemoteError, match="cannot be reached"):
        fetch(client, Blobs(tmp_path))
    client.close()


def test_a_redirect_to_another_host_does_not_take_the_credentials_along(
    registry: FaultyRegistry, tmp_path: Path
) -> None:
    with running(FaultyRegistry()) as front:
        front.redirect = registry.url.replace("127.0.0.1", "localhost")
        with closing(OciClient(front.url, auth=Secret())) as client:
            fetch(client, Blobs(tmp_path))
    assert front.authorizations == ["secret"]
    assert registry.authorizations == [None]


def part_of(blobs: Blobs) -> Path:
    part = blobs.path(DIGEST).with_name(f".{blobs.path(DIGEST).name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    return part


def test_cuts_without_end_do_not_stop_a_download_that_gets_on(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.cut_every = len(DATA) // (3 * ATTEMPTS)
    assert fetch(client, Blobs(tmp_path)) == len(DATA)
    assert len(registry.ranges) > 2 * ATTEMPTS


def test_a_download_that_does_not_get_on_is_given_up_and_keeps_what_it_has(
    registry: FaultyRegistry, tmp_path: Path
) -> None:
    pauses: list[float] = []
    client = OciClient(registry.url, sleep=pauses.append)
    part_of(Blobs(tmp_path)).write_bytes(DATA[:1000])
    registry.answers = [(503, {})] * 50
    with pytest.raises(RemoteError, match="503"):
        fetch(client, Blobs(tmp_path))
    assert len(registry.ranges) == ATTEMPTS
    assert len(pauses) == ATTEMPTS - 1
    assert part_of(Blobs(tmp_path)).read_bytes() == DATA[:1000]
    client.close()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_registry_that_is_busy_is_asked_again(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path, status: int
) -> None:
    registry.answers = [(status, {})]
    assert fetch(client, Blobs(tmp_path)) == len(DATA)


def test_a_registry_says_how_long_to_wait_within_reason(
    registry: FaultyRegistry, tmp_path: Path
) -> None:
    pauses: list[float] = []
    client = OciClient(registry.url, sleep=pauses.append)
    registry.answers = [
        (429, {"Retry-After": "8"}),
        (429, {"Retry-After": "9" * 4000}),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    ]
    fetch(client, Blobs(tmp_path))
    client.close()
    assert 4 <= pauses[0] <= 8
    assert MAX_PAUSE_S / 2 <= pauses[1] <= MAX_PAUSE_S
    assert pauses[2] <= 2


def test_a_range_that_cannot_be_satisfied_begins_anew(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    part_of(Blobs(tmp_path)).write_bytes(DATA[:1000])
    registry.answers = [(416, {"Content-Range": f"bytes */{len(DATA)}"})]
    assert fetch(client, Blobs(tmp_path)) == len(DATA)
    assert registry.ranges == ["bytes=1000-", ""]


def test_a_range_that_was_not_asked_for_is_not_taken(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    part_of(Blobs(tmp_path)).write_bytes(DATA[:1000])
    registry.shift = 10
    assert fetch(client, Blobs(tmp_path)) == len(DATA)
    assert registry.ranges == ["bytes=1000-", ""]


def test_a_blob_of_another_length_is_refused_before_it_is_paid_for(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    with pytest.raises(ReleaseError, match="is not what its release says"):
        client.fetch_blob("m", DIGEST, len(DATA) - 1, Blobs(tmp_path))
    assert len(registry.ranges) == 1


def test_what_came_whole_before_a_restart_is_not_fetched_again(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    blobs = Blobs(tmp_path)
    part_of(blobs).write_bytes(DATA)
    assert fetch(client, blobs) == 0
    assert blobs.read(DIGEST, len(DATA)) == DATA
    assert registry.ranges == []


def test_a_download_that_is_stopped_keeps_what_it_has(client: OciClient, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    class Stop(Watch):
        def arrived(self, count: int) -> None:
            raise StopError

    blobs = Blobs(tmp_path)
    with pytest.raises(StopError):
        client.fetch_blob("m", DIGEST, len(DATA), blobs, Stop())
    have = part_of(blobs).stat().st_size
    assert have > 0
    assert fetch(client, blobs) == len(DATA) - have


def test_a_disk_without_room_is_said_so_before_anything_comes(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match="no room"):
        client.fetch_blob("m", DIGEST, 1 << 60, Blobs(tmp_path))
    assert registry.ranges == []


def test_a_folder_that_cannot_be_written_is_said_so(client: OciClient, tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(DeviceError, match="cannot be stored"):
        fetch(client, Blobs(tmp_path))


@pytest.mark.parametrize(
    "url", ["", "host:8081", "ftp://host", "http://", "http://host:port", "http://\x00"]
)
def test_what_is_no_address_is_said_so(url: str) -> None:
    with pytest.raises(UserError, match="no registry's address"):
        OciClient(url)


def test_a_redirect_to_what_is_no_address_is_said_so(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.answers = [(307, {"Location": "http://[broken"})] * 10
    with pytest.raises(RemoteError):
        fetch(client, Blobs(tmp_path))


def test_redirects_without_end_are_given_up(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.redirect = registry.url
    with pytest.raises(RemoteError):
        fetch(client, Blobs(tmp_path))


def test_a_document_is_verified_and_never_more_is_read_than_may_be(
    client: OciClient, registry: FaultyRegistry
) -> None:
    assert client.document("m", DIGEST) == DATA
    with pytest.raises(ReleaseError, match="too large"):
        client.document("m", DIGEST, 1000)
    with pytest.raises(ReleaseError, match="not what its digest says"):
        client.document("m", digest_of(b"another"))
    registry.fault = "404"
    with pytest.raises(RemoteError, match="lacks it"):
        client.document("m", DIGEST)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with running(Shelf()) as made:
        yield made


@pytest.fixture
def release(tmp_path: Path) -> tuple[Layout, Release]:
    layout, made = make_release(tmp_path / "made")
    record = Evidence(stage="convert", model="toy", verification=Verification.ARTIFACT_EXECUTED)
    write_evidence(layout, made, [record])
    return layout, made


def push(shelf: Shelf, release: tuple[Layout, Release]) -> list[str]:
    seen: list[str] = []
    with closing(OciClient(shelf.url, Secret(), sleep=lambda _seconds: None)) as client:
        client.push(*release, lambda digest, _size: seen.append(digest))
    return seen


def test_a_release_that_was_pushed_is_pulled_with_its_evidence(
    shelf: Shelf, release: tuple[Layout, Release], tmp_path: Path
) -> None:
    layout, made = release
    push(shelf, release)
    client = OciClient(shelf.url)
    assert client.release(made.model, made.digest) == made
    blobs = Blobs(tmp_path / "pulled")
    for file in made.variants[0].files:
        client.fetch_blob(made.model, file.digest, file.size, blobs)
        blobs.verify(file.digest)
    [evidence] = layout.evidence_digests(made.digest)
    pulled = read_evidence(lambda d, limit: client.document(made.model, d, limit), evidence)
    assert pulled == layout.evidence(made.digest)
    client.close()


def test_a_manifest_goes_up_after_what_it_names_and_nothing_goes_twice(
    shelf: Shelf, release: tuple[Layout, Release]
) -> None:
    _, made = release
    seen = push(shelf, release)
    order = list(shelf.order)
    assert order.index(made.digest) > order.index(made.variants[0].digest)
    assert all(
        order.index(file.digest) < order.index(made.variants[0].digest)
        for file in made.variants[0].files
    )
    assert len(order) == len(set(order))
    again = push(shelf, release)
    assert again == seen, "progress is told all the same"
    assert set(shelf.order[len(order) :]) == set(order) - set(seen), "only manifests go again"


def test_an_upload_that_fails_is_begun_anew(shelf: Shelf, release: tuple[Layout, Release]) -> None:
    shelf.refuse = [503, 500]
    push(shelf, release)
    assert release[1].digest in shelf.content


def test_a_push_that_is_refused_says_so(shelf: Shelf, release: tuple[Layout, Release]) -> None:
    shelf.refuse = [403]
    with pytest.raises(RemoteError, match="403"):
        push(shelf, release)


def test_a_damaged_layout_is_not_pushed(shelf: Shelf, release: tuple[Layout, Release]) -> None:
    layout, made = release
    layout.blobs.path(made.variants[0].file("model").digest).write_bytes(b"other")
    with pytest.raises(ReleaseError, match="damaged"):
        push(shelf, release)
    assert made.digest not in shelf.content


def test_an_upload_to_another_host_does_not_take_the_credentials_along(
    shelf: Shelf, release: tuple[Layout, Release]
) -> None:
    with running(Shelf()) as other:
        shelf.place = other.url
        push(shelf, release)
    assert other.content
    assert other.authorizations == {None}
    assert shelf.authorizations == {"secret"}
