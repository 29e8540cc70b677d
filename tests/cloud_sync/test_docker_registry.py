"""Releases in the registry that others run, and read by clients that know nothing of edgeml."""

import base64
import datetime as dt
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloud_sync.registry_auth import RegistryAuth
from cloud_sync.release import Blobs, Layout, Release, digest_of, oci
from cloud_sync.transfer import OciClient
from edgeml.errors import RemoteError
from tests.cloud_sync.programs import BASIC, PASSWORD, USER, docker_registry, free_port
from tests.cloud_sync.registries import FaultyRegistry, running
from tests.cloud_sync.releases import make_release
from tests.needs import module

TOKEN = """
auth:
  token:
    realm: http://127.0.0.1:{port}/token
    service: tests
    issuer: tests
    rootcertbundle: {{folder}}/issuer.pem
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Release]:
    return make_release(tmp_path_factory.mktemp("made"))


def pull_all(client: OciClient, release: Release, folder: Path) -> None:
    assert client.release(release.model, release.digest) == release
    blobs = Blobs(folder)
    for variant in release.variants:
        for file in variant.files:
            client.fetch_blob(release.model, file.digest, file.size, blobs)
            blobs.verify(file.digest)


def test_a_release_goes_there_and_comes_back(
    release: tuple[Layout, Release], tmp_path: Path
) -> None:
    with (
        docker_registry(tmp_path / "registry", BASIC) as url,
        closing(OciClient(url, RegistryAuth(url, USER, PASSWORD), prefix="team-a")) as client,
    ):
        client.push(*release, tagged=True)
        client.push(*release, tagged=True)
        pull_all(client, release[1], tmp_path / "pulled")


def test_a_cut_download_goes_on_there(release: tuple[Layout, Release], tmp_path: Path) -> None:
    layout, made = release
    file = made.variants[0].file("model")
    with docker_registry(tmp_path / "registry") as url, closing(OciClient(url)) as client:
        client.push(layout, made)
        blobs = Blobs(tmp_path / "pulled")
        part = blobs.part(file.digest)
        part.parent.mkdir(parents=True)
        part.write_bytes(layout.blobs.path(file.digest).read_bytes()[:100])
        assert client.fetch_blob(made.model, file.digest, file.size, blobs) == file.size - 100


@pytest.mark.parametrize("password", ["wrong", ""])
def test_wrong_credentials_are_said_to_be_wrong(
    release: tuple[Layout, Release], tmp_path: Path, password: str
) -> None:
    with docker_registry(tmp_path / "registry", BASIC) as url:
        auth = RegistryAuth(url, USER, password) if password else None
        with (
            closing(OciClient(url, auth)) as client,
            pytest.raises(RemoteError, match="401") as error,
        ):
            client.push(*release)
    assert "credentials" in error.value.why


def test_a_token_is_asked_for_where_the_registry_wants_one(
    release: tuple[Layout, Release], tmp_path: Path
) -> None:
    port = free_port()
    folder = tmp_path / "registry"
    folder.mkdir()
    with (
        token_service(port, folder / "issuer.pem") as service,
        docker_registry(folder, TOKEN.format(port=port)) as url,
    ):
        with closing(OciClient(url, RegistryAuth(url, USER, PASSWORD))) as client:
            client.push(*release)
            pull_all(client, release[1], tmp_path / "pulled")
        asked = set(service.scopes)
        # The registry names the two actions in any order.
        assert asked & {f"repository:{release[1].model}:{a}" for a in ("pull,push", "push,pull")}
        assert len(service.scopes) <= 4, "a token is used again"
        with (
            closing(OciClient(url, RegistryAuth(url, USER, "wrong"))) as stranger,
            pytest.raises(RemoteError, match="401"),
        ):
            stranger.release(release[1].model, release[1].digest)


def test_oras_pulls_what_was_pushed(release: tuple[Layout, Release], tmp_path: Path) -> None:
    provider = module("oras.provider")
    layout, made = release
    variant = made.variants[0]
    with docker_registry(tmp_path / "registry") as url, closing(OciClient(url)) as client:
        client.push(layout, made, tagged=True)
        host = url.removeprefix("http://")
        stranger = provider.Registry(hostname=host, insecure=True)
        tags = stranger.get_tags(f"{host}/{made.model}")
        tag = oci.tag_of(f"{made.version}-{variant.target}")
        assert {made.version, tag} <= set(tags)
        name = f"{host}/{made.model}:{tag}"
        manifest = stranger.get_manifest(name, allowed_media_type=[oci.MANIFEST])
        assert manifest["artifactType"] == oci.MODEL_ARTIFACT
        config = stranger.get_blob(name, manifest["config"]["digest"]).content
        pack = msgspec.json.decode(config, type=oci.ModelPack)
        assert (pack.descriptor.name, pack.descriptor.version) == (made.model, made.version)
        found = {layer["annotations"][oci.FILEPATH]: layer for layer in manifest["layers"]}
        for path, layer in found.items():
            out = stranger.download_blob(name, layer["digest"], str(tmp_path / "out" / path))
            assert digest_of(Path(out).read_bytes()) == layer["digest"]
        assert variant.file("model").digest in {layer["digest"] for layer in found.values()}


def test_a_host_that_it_redirects_to_gets_no_credentials_out_of_a_challenge(
    tmp_path: Path,
) -> None:
    with running(FaultyRegistry()) as own, running(FaultyRegistry()) as other:
        own.redirect = other.url
        other.answers = [(401, {"WWW-Authenticate": f'Bearer realm="{other.url}/token"'})] * 5
        with (
            closing(OciClient(own.url, RegistryAuth(own.url, USER, PASSWORD))) as client,
            pytest.raises(RemoteError, match="401"),
        ):
            client.fetch_blob("m", digest_of(b"x"), 1, Blobs(tmp_path))
    assert own.authorizations == [None]
    assert other.authorizations == [None]


class TokenService(ThreadingHTTPServer):
    """Signs tokens, as Docker's specification says, for whoever knows the password."""

    daemon_threads = True

    def __init__(self, port: int, certificate: Path) -> None:
        super().__init__(("127.0.0.1", port), _Tokens)
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .sign(self.key, hashes.SHA256())
        )
        certificate.write_bytes(made.public_bytes(Encoding.PEM))
        self.x5c = base64.b64encode(made.public_bytes(Encoding.DER)).decode()
        self.scopes: list[str] = []

    def token(self, scope: str) -> str:
        now = int(dt.datetime.now(dt.UTC).timestamp())
        kind, name, actions = scope.split(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        head = {"typ": "JWT", "alg": "ES256", "x5c": [self.x5c]}
        body = {
            "iss": "tests", "sub": USER, "aud": "tests", "jti": "1", "access": access,
            "iat": now - 5, "nbf": now - 5, "exp": now + 300,
        }  # fmt: skip
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, body))
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class _Tokens(BaseHTTPRequestHandler):
    server: TokenService

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        scope = parse_qs(urlsplit(self.path).query)["scope"][0]
        self.server.scopes.append(scope)
        known = self.headers.get("Authorization") == f"Basic {wanted}"
        body = json.dumps({"token": self.server.token(scope), "expires_in": 300}).encode()
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(body if known else b"{}")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def token_service(port: int, certificate: Path) -> Iterator[TokenService]:
    server = TokenService(port, certificate)
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
