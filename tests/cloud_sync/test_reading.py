"""A device reads of a release what it needs to choose, and of one variant what it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_sync.evidence import Verification
from cloud_sync.release import (
    Layout,
    Release,
    ReleaseBuilder,
    choose,
    digest_of,
    read_index,
    read_release,
    read_variant,
    resolve,
)
from cloud_sync.release.oci import MAX_DOCUMENT_BYTES
from edgeml.errors import ReleaseError
from hardware.capabilities import Capabilities, Cpu
from hardware.probes import probe
from hardware.requirements import Requirements

DEVICE = probe()


class Recorded:
    """A registry in memory that keeps what was asked of it, in order."""

    def __init__(self, blobs: dict[str, bytes]) -> None:
        self.blobs = blobs
        self.asked: list[tuple[str, int]] = []

    def __call__(self, digest: str, limit: int) -> bytes:
        self.asked.append((digest, limit))
        return self.blobs[digest]

    @property
    def digests(self) -> list[str]:
        return [digest for digest, _ in self.asked]


class Made:
    """A release of three variants, and its documents to be changed: all digests follow."""

    def __init__(self, folder: Path) -> None:
        builder = ReleaseBuilder("toy", "1.0.0")
        needs = [
            Requirements(architecture=DEVICE.architecture),
            Requirements(architecture=DEVICE.architecture, cpu_features=("no_such_feature",)),
            Requirements(architecture="riscv64"),
        ]
        for number, requires in enumerate(needs):
            builder.add_variant(
                target=f"cpu-{number}",
                rank=0,
                requires=requires,
                format="onnx",
                precision="int8",
                quantization="",
                verification=Verification.ESTIMATED,
                files={"model": ("m.onnx", b"model" * (number + 1)), "golden": ("g", b"golden")},
            )
        layout = Layout.create(folder / "release")
        self.release = builder.write(layout)
        self.blobs = {
            f"sha256:{path.name}": path.read_bytes()
            for path in layout.folder.glob("blobs/sha256/*")
        }

    def registry(self) -> Recorded:
        return Recorded(self.blobs)

    def document(self, digest: str) -> Any:
        return msgspec.json.decode(self.blobs[digest])

    def put(self, document: Any) -> str:
        data = msgspec.json.encode(document)
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def with_manifest(self, target: str, change: Callable[[Any], None]) -> tuple[str, str]:
        """The digests of a release and variant whose manifest was changed, and is listed so."""
        index = self.document(self.release.digest)
        entry = next(
            e for e in index["manifests"] if e["annotations"]["dev.edgeml.target"] == target
        )
        manifest = self.document(entry["digest"])
        change(manifest)
        entry["digest"] = self.put(manifest)
        entry["size"] = len(self.blobs[entry["digest"]])
        return self.put(index), entry["digest"]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def variant_of(release: Release, target: str) -> str:
    return next(v.digest for v in release.variants if v.target == target)


def test_an_index_is_one_document_and_says_enough_to_choose(made: Made) -> None:
    registry = made.registry()
    index = read_index(registry, made.release.digest)
    assert registry.asked == [(made.release.digest, MAX_DOCUMENT_BYTES)]
    assert (index.name, index.size) == ("toy:1.0.0", len(made.blobs[made.release.digest]))
    whole = {v.digest: v for v in made.release.variants}
    for listed in index.variants:
        same = msgspec.structs.asdict(listed)
        assert same == {name: getattr(whole[listed.digest], name) for name in same}


def test_of_a_variant_its_own_documents_are_read_in_the_order_of_their_proof(made: Made) -> None:
    """Index, manifest, config: each is vouched for by the one before; no file, no other variant."""
    registry = made.registry()
    digest = variant_of(made.release, "cpu-0")
    found = read_variant(registry, made.release.digest, digest)
    config = made.document(digest)["config"]["digest"]
    assert registry.digests == [made.release.digest, digest, config]
    assert found == made.release.variant(digest)
    assert found == read_release(made.registry(), made.release.digest).variant(digest)


@pytest.mark.parametrize(
    ("capabilities", "target"),
    [
        (DEVICE, "cpu-0"),
        (msgspec.structs.replace(DEVICE, cpu=Cpu(features=("no_such_feature",))), "cpu-1"),
        (msgspec.structs.replace(DEVICE, architecture="riscv64"), "cpu-2"),
        (msgspec.structs.replace(DEVICE, architecture="sparc"), None),
    ],
)
def test_the_index_alone_chooses_what_the_whole_release_would(
    made: Made, capabilities: Capabilities, target: str | None
) -> None:
    index = read_index(made.registry(), made.release.digest)
    chosen, resolved = choose(index.variants, capabilities), resolve(made.release, capabilities)
    assert (chosen.target if chosen else None) == target
    assert (chosen.digest if chosen else None) == (
        resolved.variant.digest if resolved.variant else None
    )


def test_what_another_variant_has_damaged_is_nothing_to_a_device(made: Made) -> None:
    mine, other = (variant_of(made.release, t) for t in ("cpu-0", "cpu-2"))
    made.blobs[other] = b"damaged"
    assert read_variant(made.registry(), made.release.digest, mine).target == "cpu-0"
    with pytest.raises(ReleaseError, match="not what its digest says"):
        read_release(made.registry(), made.release.digest)


def test_a_variant_that_the_release_does_not_list_is_not_even_asked_for(made: Made) -> None:
    _, stranger = made.with_manifest("cpu-0", lambda manifest: manifest["layers"].pop())
    registry = made.registry()
    with pytest.raises(ReleaseError, match=r"toy:1\.0\.0 has no variant"):
        read_variant(registry, made.release.digest, stranger)
    assert registry.digests == [made.release.digest]


@pytest.mark.parametrize("which", ["index", "manifest", "config"])
def test_each_document_is_held_to_its_digest_and_bound(made: Made, which: str) -> None:
    mine = variant_of(made.release, "cpu-0")
    digests = {
        "index": made.release.digest,
        "manifest": mine,
        "config": made.document(mine)["config"]["digest"],
    }
    for data, why in (
        (made.blobs[digests[which]] + b" ", "not what its digest says"),
        (b"x" * (MAX_DOCUMENT_BYTES + 1), "too large"),
    ):
        registry = made.registry()
        registry.blobs = {**made.blobs, digests[which]: data}
        with pytest.raises(ReleaseError, match=why):
            read_variant(registry, made.release.digest, mine)


def _config_size(manifest: Any) -> None:
    manifest["config"]["size"] += 1


def _other_file(manifest: Any) -> None:
    manifest["layers"][0]["digest"] = digest_of(b"another model")


def _no_model(manifest: Any) -> None:
    for layer in manifest["layers"]:
        layer["annotations"]["dev.edgeml.role"] += "-report"


def _escapes(manifest: Any) -> None:
    manifest["layers"][0]["annotations"]["org.cncf.model.filepath"] = "../../etc/passwd"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_config_size, "has the wrong size"),
        (_other_file, "disagrees with itself on its files"),
        (_no_model, "has no model file"),
        (_escapes, "a path that is not allowed"),
    ],
)
def test_a_variant_read_alone_is_held_to_every_rule(
    made: Made, change: Callable[[Any], None], why: str
) -> None:
    release, variant = made.with_manifest("cpu-0", change)
    with pytest.raises(ReleaseError, match=why):
        read_variant(made.registry(), release, variant)


def test_a_manifest_of_another_size_than_listed_is_refused(made: Made) -> None:
    index = made.document(made.release.digest)
    index["manifests"][0]["size"] += 1
    with pytest.raises(ReleaseError, match="has the wrong size"):
        read_variant(made.registry(), made.put(index), index["manifests"][0]["digest"])


def test_what_a_newer_converter_writes_beside_is_passed_over(made: Made) -> None:
    """A release of a later minor version has more annotations and fields, and the same meaning."""

    def newer(manifest: Any) -> None:
        manifest["annotations"] = {"dev.edgeml.later": "x"}
        manifest["layers"][0]["annotations"]["dev.edgeml.later"] = "x"
        manifest["later"] = {"a": 1}

    release, variant = made.with_manifest("cpu-0", newer)
    index = made.document(release)
    index["annotations"]["dev.edgeml.later"] = "x"
    for entry in index["manifests"]:
        entry["annotations"]["dev.edgeml.later"] = "x"
    found = read_variant(made.registry(), made.put(index), variant)
    assert found.files == made.release.variant(variant_of(made.release, "cpu-0")).files


@pytest.mark.parametrize("key", ["requires", "rank", "target", "verification"])
def test_an_index_that_says_too_little_to_choose_by_is_refused_by_name(
    made: Made, key: str
) -> None:
    index = made.document(made.release.digest)
    del index["manifests"][1]["annotations"][f"dev.edgeml.{key}"]
    with pytest.raises(ReleaseError, match=f"lacks the annotation dev.edgeml.{key}"):
        read_index(made.registry(), made.put(index))
