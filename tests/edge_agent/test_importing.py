"""A bundle from a stick: the same checks as over a network, each refusal with its reason."""

import io
import json
import os
import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tuf.api.metadata import Snapshot, Targets, Timestamp

from cloud_sync import bundle as bundles
from cloud_sync.desired import accept
from cloud_sync.messages import DesiredState, Phase, SecurityRecord, encode
from cloud_sync.release import Blobs, Release, digest_of
from cloud_sync.trust import PayloadType, generate, sign
from edge_agent.importing import Importing, ImportResult, places, stage
from edge_agent.store import ReleaseStore
from edge_agent.trust.identity import Identity, load_identity
from edge_agent.trust.release_trust import ReleaseCheck
from edge_agent.update.journal import read_state
from edgeml.errors import EdgemlError, ExitCode, ReleaseError, UserError
from hardware.probes import probe
from tests.cloud_sync.trust.simulator import NOW, RepositorySimulator
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import DEVICE, MODEL, Scene


class Stick:
    """A bundle of one release for the scene's device, and what a test does to it."""

    def __init__(
        self, scene: Scene, folder: Path, release: Release, tuf: RepositorySimulator
    ) -> None:
        self.folder = folder
        self.release = release
        variant = release.variants[0]
        scene.want(release)
        envelope = scene.fleet.signed(DEVICE)
        assert envelope is not None
        for digest in scene.fleet.blobs.all():
            Blobs(folder).put_file(scene.fleet.blobs.path(digest))
        self.model = variant.file("model").digest
        info = bundles.BundleInfo(device=DEVICE, models={MODEL: release.version})
        bundles.complete(folder, info, envelope, files_of(tuf))

    def blob(self, digest: str) -> Path:
        return Blobs(self.folder).path(digest)


def files_of(tuf: RepositorySimulator) -> dict[str, bytes]:
    """TUF's files as a fleet would write them onto a stick."""
    files = {f"metadata/{n}.root.json": data for n, data in enumerate(tuf.roots, 1)}
    files["metadata/timestamp.json"] = tuf.published[Timestamp.type]
    files[f"metadata/{tuf.snapshot.version}.snapshot.json"] = tuf.published[Snapshot.type]
    files[f"metadata/{tuf.targets.version}.targets.json"] = tuf.published[Targets.type]
    return files


class Taker:
    """The agent's half, with real parts, and what it did."""

    def __init__(self, scene: Scene, tuf: RepositorySimulator) -> None:
        self.scene = scene
        enrolled = load_identity(scene.config)
        self.identity: Identity = msgspec.structs.replace(enrolled, root=tuf.roots[0])
        self.last = (0, 0)
        self.wall = time.time()
        self.proven = NOW
        self.taken: list[DesiredState] = []
        self.told: list[SecurityRecord] = []
        self.store = ReleaseStore(scene.data / "releases")
        self.check = ReleaseCheck(
            self.identity, lambda: None, lambda: self.proven, self.told.append
        )
        self.importing = Importing(
            scene.data,
            self.store,
            probe(),
            judge=self._judge,
            trusted=self.check.check_in,
            accept=lambda state, _: self.taken.append(state),
            tell=self.told.append,
            stop=threading.Event(),
        )

    def _judge(self, envelope: bytes, _trust: Path) -> DesiredState:
        keys = self.identity.director_keys
        return accept(envelope, device=DEVICE, keys=keys, last=self.last, now=self.wall)

    def take(self, path: Path) -> ImportResult:
        stage(path, self.scene.data, DEVICE)
        self.importing.turn()
        return msgspec.json.decode(places(self.scene.data).result.read_bytes(), type=ImportResult)

    def refuses(self, path: Path, why: str) -> ImportResult:
        """Nothing of a refused bundle is left, and nothing has changed."""
        result = self.take(path)
        assert why in result.reason
        assert result.exit_code != 0
        assert not self.taken
        assert not list(self.store.blobs.all())
        assert sorted(p.name for p in places(self.scene.data).folder.iterdir()) == ["result.json"]
        return result


@pytest.fixture
def tuf() -> RepositorySimulator:
    return RepositorySimulator()


@pytest.fixture
def stick(scene: Scene, tuf: RepositorySimulator, tmp_path: Path) -> Stick:
    release = scene.release("1.0.0")
    tuf.sign(f"{MODEL}/1.0.0", release.digest)
    tuf.publish(Targets.type)
    return Stick(scene, tmp_path / "stick", release, tuf)


@pytest.fixture
def taker(scene: Scene, tuf: RepositorySimulator) -> Taker:
    return Taker(scene, tuf)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_bundle_is_taken_whole(stick: Stick, taker: Taker, tmp_path: Path, form: str) -> None:
    path = stick.folder
    if form == "file":
        path = tmp_path / "stick.tar"
        bundles.pack(stick.folder, path)
    result = taker.take(path)
    assert result == ImportResult(bundle=result.bundle, models={MODEL: "1.0.0"})
    assert [state.device for state in taker.taken] == [DEVICE]
    for digest in taker.store.needed(stick.release.variants[0]):
        taker.store.check(digest)
    # The update asks again, without a network: the bundle's own files answer.
    taker.check(MODEL, "1.0.0", stick.release.digest)
    assert not taker.told


def test_one_for_another_device_is_refused_before_it_is_copied(
    stick: Stick, taker: Taker, scene: Scene
) -> None:
    info = bundles.BundleInfo(device="cam-2")
    (stick.folder / bundles.INFO).write_bytes(msgspec.json.encode(info))
    with pytest.raises(UserError, match="It is for 'cam-2'"):
        stage(stick.folder, scene.data, DEVICE)
    assert not places(scene.data).waiting.exists()


def test_a_state_of_another_device_is_refused(stick: Stick, taker: Taker, scene: Scene) -> None:
    wanted = scene.device.wanted
    other = encode(msgspec.structs.replace(wanted, device="cam-2"))
    signed = sign(other, PayloadType.DESIRED, scene.fleet.director)
    (stick.folder / bundles.DESIRED).write_bytes(signed)
    assert taker.refuses(stick.folder, "for 'cam-2'").exit_code == ExitCode.TRUST
    assert taker.told


def test_a_state_that_the_director_did_not_sign_is_refused(
    stick: Stick, taker: Taker, scene: Scene
) -> None:
    forged = sign(encode(scene.device.wanted), PayloadType.DESIRED, generate())
    (stick.folder / bundles.DESIRED).write_bytes(forged)
    assert taker.refuses(stick.folder, "refused").exit_code == ExitCode.TRUST
    assert taker.told


def test_an_older_state_is_refused(stick: Stick, taker: Taker) -> None:
    taker.last = (1, 1000)
    taker.refuses(stick.folder, "older than (1, 1000)")


def test_an_expired_state_is_refused(stick: Stick, taker: Taker) -> None:
    taker.wall += 1e9
    taker.refuses(stick.folder, "It expired")


def test_expired_metadata_is_refused(stick: Stick, taker: Taker) -> None:
    taker.proven = NOW + 10 * 86400.0
    assert taker.refuses(stick.folder, "expired").exit_code == ExitCode.TRUST
    assert taker.told


def test_a_release_that_nobody_signed_is_refused(
    scene: Scene, tuf: RepositorySimulator, taker: Taker, tmp_path: Path
) -> None:
    unsigned = Stick(scene, tmp_path / "stick", scene.release("2.0.0", seed=2), tuf)
    taker.refuses(unsigned.folder, "Nobody who may sign it has")


def test_metadata_that_a_thief_signed_is_refused(stick: Stick, taker: Taker) -> None:
    theirs = RepositorySimulator()
    theirs.sign(f"{MODEL}/1.0.0", stick.release.digest)
    theirs.publish(Targets.type)
    shutil.rmtree(stick.folder / "trust")
    for name, data in files_of(theirs).items():
        path = stick.folder / "trust" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    taker.refuses(stick.folder, "refused")


def test_metadata_that_is_missing_is_refused(stick: Stick, taker: Taker) -> None:
    shutil.rmtree(stick.folder / "trust")
    taker.refuses(stick.folder, "cannot be fetched")


def test_older_metadata_than_the_device_has_seen_is_refused(
    stick: Stick, taker: Taker, tuf: RepositorySimulator, scene: Scene, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    tuf.publish(Targets.type)
    for name, data in files_of(tuf).items():
        path = newer / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    taker.check.check_in(newer, MODEL, "1.0.0", stick.release.digest)
    result = taker.take(stick.folder)
    assert "replaced" in result.reason
    assert not taker.taken


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_tampered_blob_is_refused(
    stick: Stick, taker: Taker, scene: Scene, tmp_path: Path, form: str
) -> None:
    data = bytearray(stick.blob(stick.model).read_bytes())
    data[len(data) // 2] ^= 1
    stick.blob(stick.model).write_bytes(data)
    path = stick.folder
    if form == "file":
        path = tmp_path / "stick.tar"
        bundles.pack(stick.folder, path)
    with pytest.raises(ReleaseError, match="not what its digest says"):
        stage(path, scene.data, DEVICE)
    assert list(places(scene.data).folder.iterdir()) == []


def test_a_missing_file_of_the_variant_is_refused(stick: Stick, taker: Taker) -> None:
    stick.blob(stick.model).unlink()
    taker.refuses(stick.folder, "It lacks a file of the variant")


def test_a_missing_document_of_the_release_is_refused(stick: Stick, taker: Taker) -> None:
    stick.blob(stick.release.variants[0].digest).unlink()
    taker.refuses(stick.folder, "missing")


def test_a_variant_that_this_device_would_not_choose_is_refused(
    scene: Scene, tuf: RepositorySimulator, taker: Taker, tmp_path: Path
) -> None:
    release = scene.release("3.0.0", architecture="sparc64")
    tuf.sign(f"{MODEL}/3.0.0", release.digest)
    tuf.publish(Targets.type)
    taker.refuses(Stick(scene, tmp_path / "s", release, tuf).folder, "another variant")


def test_what_is_no_bundle_is_said(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no tar")
    for name, error in (("empty", ReleaseError), ("text.tar", ReleaseError), ("no", UserError)):
        with pytest.raises(error):
            stage(tmp_path / name, scene.data, DEVICE)


@pytest.mark.parametrize("cut", [100, 1000, 20_000, -2000])
def test_a_file_that_was_cut_off_is_refused(
    stick: Stick, scene: Scene, tmp_path: Path, cut: int
) -> None:
    number = sum(path.is_file() for path in stick.folder.rglob("*"))
    info = bundles.BundleInfo(device=DEVICE, files=number)
    (stick.folder / bundles.INFO).write_bytes(msgspec.json.encode(info))
    path = tmp_path / "stick.tar"
    bundles.pack(stick.folder, path)
    data = path.read_bytes()
    path.write_bytes(data.rstrip(b"\0")[:cut])
    with pytest.raises(EdgemlError):
        stage(path, scene.data, DEVICE)
    assert not places(scene.data).waiting.exists()


def test_names_that_lead_out_of_the_bundle_lead_nowhere(
    stick: Stick, taker: Taker, scene: Scene, tmp_path: Path
) -> None:
    path = tmp_path / "stick.tar"
    bundles.pack(stick.folder, path)
    with tarfile.open(path, "a:") as tar:
        for name in ("../escaped", "/tmp/escaped", "trust/metadata/../../../escaped", "other"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("trust/metadata/link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert not taker.take(path).reason
    found = {p.name for p in scene.data.rglob("*")} | {p.name for p in tmp_path.iterdir()}
    assert not {"escaped", "other", "link.json"} & found


def test_links_and_pipes_in_a_folder_are_not_followed(
    stick: Stick, taker: Taker, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s")
    (stick.folder / "trust" / "metadata" / "link.json").symlink_to(tmp_path / "secret")
    os.mkfifo(stick.folder / "trust" / "metadata" / "pipe.json")
    assert not taker.take(stick.folder).reason
    names = {p.name for p in places(taker.scene.data).trust.rglob("*")}
    assert "timestamp.json" in names
    assert not {"link.json", "pipe.json"} & names


def test_what_the_device_has_need_not_be_on_the_stick(stick: Stick, taker: Taker) -> None:
    taker.store.blobs.put(stick.blob(stick.model).read_bytes())
    stick.blob(stick.model).unlink()
    assert not taker.take(stick.folder).reason


@pytest.fixture
def offline(scene: Scene, tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes bundles; the fleet goes away at the first and stays away."""

    def make(version: str, seed: int) -> Path:
        scene.fleet.stop()
        release = scene.release(version, seed=seed)
        return Stick(scene, tmp_path / version, release, RepositorySimulator()).folder

    return make


@pytest.mark.parametrize(
    "failpoint",
    ["import-taken:kill", "import-stored:kill", "import-stored:kill:3", "import-accepted:kill"],
)
def test_kill_9_in_an_import_leaves_nothing_half(
    scene: Scene, offline: Callable[[str, int], Path], failpoint: str
) -> None:
    stage(offline("1.0.0", 1), scene.data, DEVICE)
    with AgentProcess(scene.config, failpoint) as agent:
        eventually(lambda: agent.ended, 60, "the agent to be killed")
    with AgentProcess(scene.config):

        def committed() -> bool:
            state = read_state(scene.data / "state.json").models.get(MODEL)
            return state is not None and state.phase is Phase.COMMITTED

        eventually(committed, 60, "1.0.0 to be committed")
        eventually(lambda: not places(scene.data).taken.exists(), 30, "the bundle to go")
    result = json.loads(places(scene.data).result.read_bytes())
    assert result["reason"] == ""


def test_the_digest_of_a_bundle_is_that_of_its_state(stick: Stick, taker: Taker) -> None:
    envelope = (stick.folder / bundles.DESIRED).read_bytes()
    assert taker.take(stick.folder).bundle == digest_of(envelope)


def test_root_gives_the_agents_user_what_it_staged_and_not_what_a_link_leads_to(
    stick: Stick, scene: Scene, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files to another")
    secret, folder = tmp_path / "shadow", places(scene.data).folder
    secret.write_text("root's")
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    os.chown(scene.data, 12345, 12345)
    stage(stick.folder, scene.data, DEVICE)
    assert secret.stat().st_uid == 0
    given = [folder, *places(scene.data).waiting.rglob("*")]
    assert {path.stat().st_uid for path in given} == {12345}
