"""An agent takes releases from where it is told to, and from nobody who lies."""

from contextlib import closing

import msgspec

from cloud_sync.messages import Phase, RecordKind, SecurityKind, SecurityRecord
from cloud_sync.release import Layout, Release
from cloud_sync.transfer import OciClient
from tests.cloud_sync.programs import docker_registry
from tests.cloud_sync.registries import FaultyRegistry, running
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene


def use_mirrors(scene: Scene, *mirrors: str) -> None:
    scene.configuration = msgspec.structs.replace(
        scene.configuration, config_version=2, mirrors=mirrors, max_download_bytes_s=100_000_000
    )


def blobs_asked(scene: Scene, release: Release) -> set[str]:
    asked = {request.rpartition("/")[2] for request in scene.fleet.requests}
    return asked & {file.digest for variant in release.variants for file in variant.files}


def test_a_release_comes_from_an_external_registry_and_not_from_the_fleet(scene: Scene) -> None:
    release = scene.release("1.0.0")
    with docker_registry(scene.folder / "registry") as url:
        with closing(OciClient(url, prefix="team-a")) as client:
            client.push(Layout.open(scene.folder / "releases" / "1.0.0" / "release"), release)
        use_mirrors(scene, f"{url}/team-a")
        scene.want(release)
        with AgentProcess(scene.config) as agent:
            eventually(
                lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed"
            )
            agent.stop()
    assert blobs_asked(scene, release) == set()


def test_a_mirror_that_lies_is_left_for_the_fleet_and_reported(scene: Scene) -> None:
    release = scene.release("1.0.0")
    with running(FaultyRegistry()) as liar:
        scene.config.write_text(scene.config.read_text() + f'mirrors = ["{liar.url}"]\n')
        scene.want(release)
        with AgentProcess(scene.config) as agent:
            eventually(
                lambda: scene.device.phase(MODEL, "1.0.0") is Phase.COMMITTED, what="committed"
            )
            eventually(lambda: scene.device.of(RecordKind.SECURITY), what="the event")
            agent.stop()
        assert len(liar.ranges) == 1, "it is not asked again"
    [body] = scene.device.of(RecordKind.SECURITY)
    event = msgspec.json.decode(body, type=SecurityRecord)
    assert event.kind is SecurityKind.LYING_REGISTRY
    assert liar.url in event.detail
