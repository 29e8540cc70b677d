"""Registries that keep a device busy for ever, or try to: each is named, and each ends."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cloud_sync.download import Pace
from cloud_sync.patience import ATTEMPTS
from cloud_sync.release import Blobs
from cloud_sync.transfer import OciClient
from edgeml.errors import ReleaseError, RemoteError
from tests.cloud_sync.registries import DATA, DIGEST, FaultyRegistry, running

IMPATIENT = Pace(answer_s=0.3, window_s=0.3)


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with running(FaultyRegistry()) as made:
        yield made


@pytest.fixture
def client(registry: FaultyRegistry) -> Iterator[OciClient]:
    with closing(OciClient(registry.url, sleep=lambda _seconds: None)) as made:
        yield made


@pytest.fixture
def impatient(registry: FaultyRegistry) -> Iterator[OciClient]:
    with closing(OciClient(registry.url, pace=IMPATIENT, sleep=lambda _seconds: None)) as made:
        yield made


def fetch(client: OciClient, folder: Path) -> int:
    return client.fetch_blob("m", DIGEST, len(DATA), Blobs(folder))


@pytest.mark.parametrize("what", ["headers", "body"])
def test_a_byte_now_and_then_is_no_answer(
    impatient: OciClient, registry: FaultyRegistry, tmp_path: Path, what: str
) -> None:
    registry.drip = what
    with pytest.raises(RemoteError, match="too slow"):
        fetch(impatient, tmp_path)
    assert len(registry.ranges) <= ATTEMPTS


def test_a_document_that_drips_is_given_up(impatient: OciClient, registry: FaultyRegistry) -> None:
    registry.drip = "body"
    with pytest.raises(RemoteError, match="too slow"):
        impatient.document("m", DIGEST)


def test_a_blob_that_does_not_end_is_cut_at_its_size(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.endless = "blob"
    with pytest.raises(ReleaseError, match=f"more than {len(DATA)} bytes"):
        fetch(client, tmp_path)
    assert len(registry.ranges) == 1
    assert not Blobs(tmp_path).part(DIGEST).exists()


@pytest.mark.parametrize("what", ["redirect", "refusal"])
def test_an_answer_that_does_not_end_is_not_read(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path, what: str
) -> None:
    registry.endless = what
    with pytest.raises(RemoteError):
        fetch(client, tmp_path)
    assert client.meter.traffic().received < 100 << 20


@pytest.mark.parametrize(
    ("status", "says"), [(404, "lacks it"), (410, "has removed it"), (403, "does not allow it")]
)
def test_a_resume_that_is_refused_is_not_asked_again(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path, status: int, says: str
) -> None:
    part = Blobs(tmp_path).part(DIGEST)
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[:1000])
    registry.answers = [(status, {})] * 10
    with pytest.raises(RemoteError, match=says):
        fetch(client, tmp_path)
    assert registry.ranges == ["bytes=1000-"]


def test_a_range_that_is_never_satisfied_ends(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.answers = [(416, {})] * 50
    with pytest.raises(RemoteError, match="416"):
        fetch(client, tmp_path)
    assert len(registry.ranges) == ATTEMPTS


def test_cuts_that_bring_next_to_nothing_end(
    client: OciClient, registry: FaultyRegistry, tmp_path: Path
) -> None:
    registry.cut_every = 10
    with pytest.raises(RemoteError, match="cannot be reached"):
        fetch(client, tmp_path)
    assert len(registry.ranges) == ATTEMPTS
    registry.cut_every = 0
    assert fetch(client, tmp_path) < len(DATA), "what came is kept"


def test_a_rate_is_kept_to(registry: FaultyRegistry, tmp_path: Path) -> None:
    slept: list[float] = []
    pace = Pace(most_bytes_s=len(DATA) // 400)
    with closing(OciClient(registry.url, pace=pace, sleep=slept.append)) as client:
        fetch(client, tmp_path)
    # The clock does not stand still meanwhile: each pause is up to where the rate had to be.
    assert 100 < max(slept) <= 401


def test_the_registry_is_named(registry: FaultyRegistry, tmp_path: Path) -> None:
    registry.fault = "404"
    with (
        closing(OciClient(registry.url)) as client,
        pytest.raises(RemoteError, match=r"127\.0\.0\.1"),
    ):
        fetch(client, tmp_path)
