"""What is published goes to a registry that others run: Debian's docker-registry, with a login."""

from contextlib import closing
from pathlib import Path

import httpx
import pytest

from cloud_sync.registry_auth import RegistryAuth
from cloud_sync.release import Blobs, Layout, Release
from cloud_sync.transfer import OciClient
from edge_agent.registries import Registries, RegistrySettings
from edgeml.errors import UserError
from fleet.external_registry import ExternalRegistry, Pusher
from fleet.listeners import Listener
from fleet.options import Options, check
from fleet.services import alerts
from fleet.services.context import Caller
from fleet.show import release_text, releases_text
from tests.cloud_sync.programs import BASIC, PASSWORD, USER, docker_registry, free_port
from tests.fleet.conftest import Listening

MANIFESTS = "application/vnd.oci.image.index.v1+json"


def pulled(url: str, release: Release, folder: Path) -> None:
    """A device pulls all of it, by digest, from that registry alone."""
    gone = f"http://127.0.0.1:{free_port()}"
    settings = RegistrySettings(fleet_url=gone, mirrors=(url,))
    blobs = Blobs(folder)
    with closing(Registries(lambda: settings, None, sleep=lambda _: None)) as registries:
        for variant in release.variants:
            for file in variant.files:
                registries.fetch_blob(release.model, file.digest, file.size, blobs)
                blobs.verify(file.digest)


def test_what_is_published_is_pushed_with_its_evidence_and_tags_once(
    fleet: Listening, release_folder: Path, tmp_path: Path
) -> None:
    layout = Layout.open(release_folder)
    release = layout.release()
    fleet.client.push(release_folder)
    with docker_registry(tmp_path / "registry", BASIC) as url:
        pusher = Pusher(fleet.services, ExternalRegistry(f"{url}/team-a", USER, PASSWORD))
        assert (pusher.push_all(), pusher.push_all()) == (1, 0)
        auth = RegistryAuth(url, USER, PASSWORD)
        with closing(OciClient(url, auth, prefix="team-a")) as client:
            assert client.release("digits", release.digest) == release
            for digest in layout.evidence_digests(release.digest):
                client.document("digits", digest, 1 << 20)
        tagged = httpx.get(
            f"{url}/v2/team-a/digits/manifests/{release.version}",
            auth=(USER, PASSWORD),
            headers={"Accept": MANIFESTS},
        )
        assert tagged.headers["docker-content-digest"] == release.digest
        # Who leads no more pushes nothing, and whoever leads next finds it there.
        cut = Pusher(fleet.services, ExternalRegistry(f"{url}/team-b", USER, PASSWORD))
        cut.cut()
        assert cut.push_all() == 0
        other = Pusher(fleet.services, ExternalRegistry(f"{url}/team-a", USER, PASSWORD))
        assert other.push_all() == 0
    assert fleet.services.counters.all()["registry.pushed"] == 1
    assert PASSWORD not in repr(ExternalRegistry(url, USER, PASSWORD))


def test_a_registry_that_is_away_or_refuses_is_asked_again_and_devices_pull_from_it(
    fleet: Listening, release_folder: Path, tmp_path: Path
) -> None:
    port = free_port()
    fleet.client.push(release_folder)
    url = f"http://127.0.0.1:{port}"
    pusher = Pusher(fleet.services, ExternalRegistry(url), pause_s=(0.0, 0.0))
    assert pusher.push_all() == 0
    with docker_registry(tmp_path / "closed", BASIC, port):
        assert pusher.push_all() == 0
    assert fleet.services.counters.all()["registry.push_failed"] == 2
    with docker_registry(tmp_path / "open", port=port):
        assert pusher.push_all() == 1
        pulled(url, Layout.open(release_folder).release(), tmp_path / "device")


def test_a_wrong_password_is_told_of_where_an_operator_looks_and_not_tried_in_a_hurry(
    fleet: Listening, release_folder: Path, tmp_path: Path
) -> None:
    fleet.client.push(release_folder)
    alerts.set_rules(fleet.services, Caller("anna"), {"registry_behind_s": 1e-6})
    with docker_registry(tmp_path / "registry", BASIC) as url:
        wrong = Pusher(fleet.services, ExternalRegistry(f"{url}/team-a", USER, "wrong"))
        assert (wrong.push_all(), wrong.push_all()) == (0, 0)
        assert fleet.services.counters.all()["registry.push_failed"] == 1  # it pauses first
        [release] = fleet.client.releases()
        assert release["registry"].startswith("not pushed: ")
        assert release["registry"] in releases_text([release])
        assert release["registry"] in release_text(release)
        alerts.look(fleet.services)
        [found] = fleet.client.alerts(kind="registry-behind")
        assert found["state"] == "firing"
        assert "digits:1.0.0 could not be pushed" in found["summary"]
        assert "wrong" not in found["summary"]

        right = Pusher(fleet.services, ExternalRegistry(f"{url}/team-a", USER, PASSWORD))
        assert right.push_all() == 1
        alerts.look(fleet.services)
        [found] = fleet.client.alerts(kind="registry-behind")
        assert (found["state"], fleet.client.releases()[0]["registry"]) == ("resolved", "pushed")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("registry.example/team-a", "is no registry's address"),
        ("ftp://registry.example", "is no registry's address"),
        ("http://registry.example", "registry"),
        ("https://somebody:secret@registry.example", "names an account"),
    ],
)
def test_an_address_that_cannot_be_or_is_not_private_is_refused_before_the_start(
    tmp_path: Path, url: str, why: str
) -> None:
    here = Listener("listener", "127.0.0.1", 1, "--port")
    options = Options(tmp_path, here, here, here, registry=ExternalRegistry(url))
    with pytest.raises(UserError, match=why):
        check(options)
