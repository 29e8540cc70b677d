"""Downloads through a proxy that others run: of the environment, and of agent.toml."""

import os
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cloud_sync.release import Blobs
from cloud_sync.transfer import OciClient
from edge_agent.resources import use_proxy
from edgeml.errors import RemoteError, UserError
from tests.cloud_sync.programs import tinyproxy
from tests.cloud_sync.registries import DATA, DIGEST, FaultyRegistry, running
from tests.cloud_sync.test_address import self_signed

# No loopback address, for which no proxy is asked, and yet this machine.
HERE = "0.0.0.0"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyRegistry]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    certificate = self_signed(tmp_path, HERE)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    made = FaultyRegistry()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    made.socket = context.wrap_socket(made.socket, server_side=True)
    with running(made):
        yield made


def address(registry: FaultyRegistry) -> str:
    return f"https://{HERE}:{registry.server_address[1]}"


def fetch(registry: FaultyRegistry, folder: Path) -> OciClient:
    with closing(OciClient(address(registry), sleep=lambda _seconds: None)) as client:
        client.fetch_blob("m", DIGEST, len(DATA), Blobs(folder / "pulled"))
    assert Blobs(folder / "pulled").read(DIGEST, len(DATA)) == DATA
    return client


def test_the_environment_s_proxy_is_asked_and_its_bytes_are_counted(
    registry: FaultyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tinyproxy(tmp_path, to_port=registry.server_address[1]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        registry.cut_at = 200_000
        client = fetch(registry, tmp_path)
    assert f"CONNECT {HERE}:" in (tmp_path / "tinyproxy.log").read_text()
    assert registry.ranges[1].startswith("bytes="), "cut and resumed through it"
    assert len(DATA) < client.meter.traffic().received < 1.2 * len(DATA)


def test_agent_toml_s_proxy_is_asked_with_its_credentials(
    registry: FaultyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "")  # put back what use_proxy sets
    with tinyproxy(
        tmp_path, to_port=registry.server_address[1], credentials="device secret"
    ) as proxy:
        use_proxy(proxy)
        with pytest.raises(RemoteError, match="407"):
            fetch(registry, tmp_path)
        use_proxy(proxy.replace("http://", "http://device:secret@"))
        fetch(registry, tmp_path)


def test_a_host_that_needs_no_proxy_is_asked_directly(
    registry: FaultyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tinyproxy(tmp_path, to_port=1) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", HERE)
        client = fetch(registry, tmp_path)
    assert len(DATA) < client.meter.traffic().received < 1.2 * len(DATA), "TLS and all"


def test_what_is_no_proxy_is_said_so_without_its_password() -> None:
    with pytest.raises(UserError, match="cannot be used") as error:
        use_proxy("socks4://me:secret@host")
    assert "secret" not in str(error.value)
