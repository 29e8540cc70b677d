"""Back to an older release by its name: a new desired state, read no further than is needed."""

from pathlib import Path

import msgspec
import pytest

from cloud_sync.evidence import Verification
from cloud_sync.release import Layout, Release, ReleaseBuilder, Variant
from edge_agent.update.journal import read_state
from tests.cloud_sync.releases import make_release
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene


def release_of_two(scene: Scene, version: str) -> tuple[Release, Variant]:
    """A release for this machine and for another kind of it, and the variant for this one."""
    folder = scene.folder / "made" / version
    layout, made = make_release(folder, version, seed=int(version[0]))
    [mine] = made.variants
    builder = ReleaseBuilder(MODEL, version)
    files = {f.role: (f.path, layout.blobs.read(f.digest, f.size)) for f in mine.files}
    for architecture in (mine.requires.architecture, "riscv64"):
        other = architecture == "riscv64"
        builder.add_variant(
            target="cpu-other" if other else mine.target,
            rank=0,
            requires=msgspec.structs.replace(mine.requires, architecture=architecture),
            format="onnx",
            precision="float32",
            quantization="",
            verification=Verification(mine.verification),
            files=files | ({"model": ("model.onnx", b"of the other")} if other else {}),
        )
    whole = Layout.create(folder / "two")
    builder.write(whole)
    release = scene.fleet.publish(whole)
    return release, next(v for v in release.variants if v.target == mine.target)


def documents(scene: Scene, variant: Variant) -> set[str]:
    """The digests of what a device may ask for that runs a variant and has nothing of it."""
    manifest = msgspec.json.decode(scene.fleet.blobs.path(variant.digest).read_bytes())
    return {variant.digest, manifest["config"]["digest"], *(f.digest for f in variant.files)}


def asked(scene: Scene) -> set[str]:
    return {r.rpartition("/")[2] for r in scene.fleet.requests if "/sha256:" in r}


def on_disk(scene: Scene) -> set[str]:
    return {f"sha256:{path.name}" for path in (scene.data / "releases").rglob("*")}


@pytest.fixture
def versions(scene: Scene) -> dict[str, tuple[Release, Variant]]:
    return {version: release_of_two(scene, version) for version in ("1.0.0", "2.0.0", "3.0.0")}


def journalled(scene: Scene) -> tuple[str, str]:
    """The versions that run and that ran before, as the device has them on its disk."""
    state = read_state(Path(scene.data) / "state.json").models.get(MODEL)
    found = (state.running, state.previous) if state else (None, None)
    running, before = (desired.release_version if desired else "" for desired in found)
    return running, before


def test_a_device_goes_back_to_what_it_has_long_removed_and_reads_one_variant_of_it(
    scene: Scene, versions: dict[str, tuple[Release, Variant]]
) -> None:
    with AgentProcess(scene.config) as agent:
        for version, (release, variant) in versions.items():
            scene.fleet.want(
                "cam-1", {MODEL: scene.fleet.desired(release, variant=variant)}, scene.configuration
            )
            eventually(lambda: journalled(scene)[0] == version, what=version)  # noqa: B023
        assert journalled(scene) == ("3.0.0", "2.0.0")
        release, variant = versions["1.0.0"]
        others = set.union(*(documents(scene, v) for _, v in list(versions.values())[1:]))
        own = (documents(scene, variant) | {release.digest}) - others
        assert {release.digest, variant.digest, variant.file("model").digest} <= own
        eventually(lambda: not on_disk(scene) & own, what="the removal of 1.0.0")

        scene.fleet.requests.clear()
        desired = scene.fleet.desired(release, variant=variant, attempt=2)
        scene.fleet.want("cam-1", {MODEL: desired})
        eventually(lambda: journalled(scene) == ("1.0.0", "3.0.0"), what="1.0.0 again")
        assert asked(scene) == own
        assert agent.stop()[0] == 0
