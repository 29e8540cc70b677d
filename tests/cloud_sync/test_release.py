"""Releases: written reproducibly, read strictly."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sync.evidence import Evidence, Verification
from cloud_sync.release import (
    Blobs,
    Layout,
    ReleaseBuilder,
    digest_of,
    read_release,
    write_evidence,
)
from edgeml.errors import EdgemlError, ReleaseError
from hardware.requirements import Requirements
from tests.cloud_sync.releases import make_release


def test_the_same_inputs_give_the_same_digest_in_any_folder(tmp_path: Path) -> None:
    _, first = make_release(tmp_path / "a")
    _, second = make_release(tmp_path / "b")
    assert first == second


def test_another_version_is_another_release(tmp_path: Path) -> None:
    assert make_release(tmp_path / "a")[1].digest != make_release(tmp_path / "b", "1.0.1")[1].digest


def test_a_release_is_read_back_with_its_files(tmp_path: Path) -> None:
    layout, release = make_release(tmp_path)
    [again] = Layout.open(layout.folder).releases()
    assert again == release
    [variant] = again.variants
    assert {f.role for f in variant.files} == {"model", "pipeline", "golden", "recorded"}
    assert layout.blobs.read(variant.file("pipeline").digest, 10_000).startswith(b"\nversion")
    assert variant.find("report") is None


def test_a_file_that_variants_share_is_one_blob(tmp_path: Path) -> None:
    builder = ReleaseBuilder("m", "1")
    for rank in (0, 1):
        builder.add_variant(
            target="t",
            rank=rank,
            requires=Requirements(),
            format="onnx",
            precision=f"p{rank}",
            quantization="",
            verification=Verification.ESTIMATED,
            files={"model": ("m.onnx", b"model"), "golden": ("g.npz", b"golden")},
        )
    layout = Layout.create(tmp_path / "r")
    release = builder.write(layout)
    assert len({f.digest for v in release.variants for f in v.files}) == 2


def test_evidence_travels_beside_the_release_and_leaves_its_digest_alone(tmp_path: Path) -> None:
    layout, release = make_release(tmp_path)
    record = Evidence(stage="convert", model="toy", verification=Verification.ARTIFACT_EXECUTED)
    write_evidence(layout, release, [record])
    assert layout.evidence(release.digest) == [record]
    assert layout.release() == release


def test_what_cannot_be_a_name_or_version_is_refused() -> None:
    with pytest.raises(ReleaseError, match="model's name"):
        ReleaseBuilder("Digits", "1")
    with pytest.raises(ReleaseError, match="version"):
        ReleaseBuilder("digits", "../1")


def test_a_folder_that_is_no_release_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="no release folder"):
        Layout.open(tmp_path)


def test_a_damaged_blob_is_refused_when_it_is_read(tmp_path: Path) -> None:
    layout, release = make_release(tmp_path)
    path = layout.blobs.path(release.variants[0].digest)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(ReleaseError, match="damaged"):
        layout.release()
    with pytest.raises(ReleaseError, match="damaged"):
        layout.blobs.verify(release.variants[0].digest)


def tampered(
    tmp_path: Path, change_manifest: Callable[[Any], None], change_entry: Callable[[Any], None]
) -> None:
    """Read a release whose documents say something else, with digests that fit."""
    layout, release = make_release(tmp_path)
    blobs = layout.blobs
    index = msgspec.json.decode(blobs.read(release.digest, 10**6))
    entry = index["manifests"][0]
    manifest = msgspec.json.decode(blobs.read(entry["digest"], 10**6))
    change_manifest(manifest)
    data = msgspec.json.encode(manifest)
    entry |= {"digest": blobs.put(data), "size": len(data)}
    change_entry(entry)
    read_release(blobs.read, blobs.put(msgspec.json.encode(index)))


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("../evil", "not allowed"),
        ("/etc/passwd", "not allowed"),
        ("a/../../b", "not allowed"),
        ("a//b", "not allowed"),
        ("a\\b", "not allowed"),
        ("a\nb", "not allowed"),
        ("", "not allowed"),
    ],
)
def test_a_path_that_leads_out_of_the_release_is_refused(
    tmp_path: Path, path: str, word: str
) -> None:
    def change(manifest: Any) -> None:
        manifest["layers"][0]["annotations"]["org.cncf.model.filepath"] = path

    with pytest.raises(ReleaseError, match=word):
        tampered(tmp_path, change, lambda _: None)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["layers"][0].update(mediaType="application/x-tar"),
        lambda m: m["layers"][0].update(size=-1),
        lambda m: m["layers"][0].update(digest="md5:abc"),
        lambda m: m["layers"].extend(m["layers"] * 100),
        lambda m: m["layers"].append(m["layers"][0]),
        lambda m: m["layers"].clear(),
        lambda m: m["config"].update(mediaType="application/json"),
        lambda m: m["layers"][0].pop("annotations"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    with pytest.raises(ReleaseError):
        tampered(tmp_path, change, lambda _: None)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(size=1),
        lambda e: e.update(artifactType="application/other"),
        lambda e: e.pop("platform"),
        lambda e: e["annotations"].update({"dev.edgeml.requires": "{"}),
        lambda e: e["annotations"].update({"dev.edgeml.rank": "best"}),
        lambda e: e["annotations"].pop("dev.edgeml.target"),
    ],
)
def test_an_index_that_breaks_a_rule_is_refused(
    tmp_path: Path, change: Callable[[Any], None]
) -> None:
    with pytest.raises(ReleaseError):
        tampered(tmp_path, lambda _: None, change)


def test_a_registry_that_swaps_a_document_is_found_out(tmp_path: Path) -> None:
    layout, release = make_release(tmp_path)

    def swap(digest: str, limit: int) -> bytes:
        data = layout.blobs.read(digest, limit)
        return data if digest == release.digest else data + b" "

    with pytest.raises(ReleaseError, match="not what its digest says"):
        read_release(swap, release.digest)


@given(data=st.binary(max_size=300))
def test_no_bytes_in_place_of_an_index_raise_anything_but_our_error(data: bytes) -> None:
    with contextlib.suppress(EdgemlError):
        read_release(lambda _digest, _limit: data, digest_of(data))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_no_damaged_byte_in_an_index_raises_anything_but_our_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    layout, release = make_release(tmp_path_factory.mktemp("r"))
    index = bytearray(layout.blobs.read(release.digest, 10**6))
    index[data.draw(st.integers(0, len(index) - 1))] = data.draw(st.integers(0, 255))
    blobs = Blobs(layout.folder)
    with contextlib.suppress(EdgemlError):
        read_release(blobs.read, blobs.put(bytes(index)))
