"""Where a registry is asked for a document: a manifest is no blob there, a config no manifest."""

from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloud_sync.release import Release, oci, read_variant
from cloud_sync.transfer import OciClient
from edgeml.errors import RemoteError
from tests.cloud_sync.registries import running
from tests.cloud_sync.releases import make_release


class Strict(ThreadingHTTPServer):
    """Serves manifests as such and blobs as such, as most registries do, and notes the paths."""

    daemon_threads = True

    def __init__(self, manifests: dict[str, bytes], blobs: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), StrictHandler)
        self.content = {"manifests": manifests, "blobs": blobs}
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class StrictHandler(BaseHTTPRequestHandler):
    server: Strict

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        _, kind, digest = self.path.rsplit("/", 2)
        self.server.asked.append((kind, digest))
        data = self.server.content[kind].get(digest)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")


class Made:
    """A release on such a registry."""

    def __init__(self, folder: Path) -> None:
        layout, self.release = make_release(folder)
        self.variant = self.release.variants[0].digest
        self.config = oci.from_json(
            layout.blobs.read(self.variant, oci.MAX_DOCUMENT_BYTES), oci.Manifest, "manifest"
        ).config.digest
        every = {d: layout.blobs.path(d).read_bytes() for d in layout.blobs.all()}
        listed = {self.release.digest, self.variant}
        self.registry = Strict(
            {d: every[d] for d in listed}, {d: every[d] for d in every if d not in listed}
        )


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    found = Made(tmp_path)
    with running(found.registry):
        yield found


def test_a_variant_is_read_with_one_request_for_each_document(made: Made) -> None:
    release: Release = made.release
    with closing(OciClient(made.registry.url)) as client:
        found = read_variant(
            lambda digest, limit: client.document("toy", digest, limit),
            release.digest,
            made.variant,
        )
    assert found == release.variants[0]
    assert made.registry.asked == [
        ("manifests", release.digest),
        ("manifests", made.variant),
        ("blobs", made.config),
    ]


def test_a_config_whose_manifest_is_at_hand_already_is_found_all_the_same(made: Made) -> None:
    """A device that was cut between the two has kept the manifest and asks for the config alone."""
    with closing(OciClient(made.registry.url)) as client:
        client.document("toy", made.config)
    assert made.registry.asked == [("manifests", made.config), ("blobs", made.config)]


def test_what_the_registry_has_as_neither_is_said_to_be_missing(made: Made) -> None:
    with closing(OciClient(made.registry.url)) as client, pytest.raises(RemoteError):
        client.document("toy", f"sha256:{'0' * 64}")
    assert [kind for kind, _ in made.registry.asked] == ["manifests", "blobs"]
