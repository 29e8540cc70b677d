"""`edgeml releases publish`: a release goes to a registry that is not the fleet's."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud_sync.registry_auth import RegistryAuth
from cloud_sync.transfer import OciClient
from edgeml.cli import app
from edgeml.errors import RemoteError, UserError
from tests.cloud_sync.programs import BASIC, PASSWORD, USER, docker_registry
from tests.cloud_sync.releases import make_release


def test_a_release_is_published_and_devices_can_pull_it(tmp_path: Path) -> None:
    layout, release = make_release(tmp_path / "made")
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    with docker_registry(tmp_path / "registry", BASIC) as url:
        command = ["releases", "publish", str(layout.folder), "--registry", f"{url}/team-a"]
        done = CliRunner().invoke(
            app, [*command, "--username", USER, "--password-file", str(secret), "--json"]
        )
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["digest"] == release.digest
        assert found["release"].endswith(f"/team-a/{release.name}")
        auth = RegistryAuth(url, USER, PASSWORD)
        with closing(OciClient(url, auth, prefix="team-a")) as client:
            assert client.release(release.model, release.digest) == release
        refused = CliRunner().invoke(app, command)
        assert isinstance(refused.exception, RemoteError)
        missing = CliRunner().invoke(app, [*command, "--password-file", str(tmp_path / "none")])
        assert isinstance(missing.exception, UserError)


@pytest.mark.parametrize("address", ["registry.example", "http://registry.example"])
def test_an_address_that_cannot_be_used_is_said_so(tmp_path: Path, address: str) -> None:
    layout, _ = make_release(tmp_path / "made")
    done = CliRunner().invoke(
        app, ["releases", "publish", str(layout.folder), "--registry", address]
    )
    assert isinstance(done.exception, UserError)
