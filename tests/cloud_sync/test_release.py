"""Releases: written reproducibly, read strictly."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
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
    read_evidence,
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
        ("a/" * 200 + "b", "not allowed"),
    ],
)
def test_a_path_that_leads_out_of_the_release_is_refused(
    tmp_path: Path, path: str, word: str
) -> None:
    def change(manifest: Any) -> None:
        manifest["layers"][0]["annotations"]["org.cncf.model.filepath"] = path

    with pytest.raises(ReleaseError, match=word):
        tampered(tmp_path, change, lambda _: None)


def role(name: str) -> Callable[[Any], None]:
    return lambda m: m["layers"][0]["annotations"].update({"dev.edgeml.role": name})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m["layers"][0].update(mediaType="application/x-tar"), "unknown kind"),
        (lambda m: m["layers"][0].update(size=-1), ">= 0"),
        (lambda m: m["layers"][0].update(size=1 << 60), "<= "),
        (lambda m: m["layers"][0].update(digest="md5:abc"), "matching regex"),
        (lambda m: m["layers"][0].update(digest=m["layers"][0]["digest"] + "\n"), "regex"),
        (lambda m: m["layers"][0].update(digest=m["layers"][1]["digest"]), "lists others"),
        (lambda m: m["layers"].extend(m["layers"] * 100), "length <= 64"),
        (lambda m: m["layers"].append(m["layers"][0]), "lists others"),
        (lambda m: m["layers"].clear(), "lists others"),
        (lambda m: m["layers"][0].pop("annotations"), "lacks the annotation"),
        (role("recorded"), "has a role twice"),
        (role("a role"), "not allowed"),
        (role("x" * 200), "not allowed"),
        (lambda m: m["config"].update(mediaType="application/json"), "no model config"),
        (lambda m: m["config"].update(size=3), "wrong size"),
        (lambda m: m["config"].update(digest=digest_of(b"none")), "missing"),
        (lambda m: m.update(artifactType="application/other"), "is no model"),
        (lambda m: m.update(mediaType="application/other"), "is no model"),
        (lambda m: m.update(schemaVersion=1), ">= 2"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused_by_name(
    tmp_path: Path, change: Callable[[Any], None], word: str
) -> None:
    with pytest.raises(ReleaseError, match=word):
        tampered(tmp_path, change, lambda _: None)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda e: e.update(size=1), "wrong size"),
        (lambda e: e.update(artifactType="application/other"), "is no model"),
        (lambda e: e.update(mediaType="application/other"), "is no model"),
        (lambda e: e.pop("platform"), "platform"),
        (lambda e: e["platform"].update(os="plan9"), "platform"),
        (lambda e: e["annotations"].update({"dev.edgeml.requires": "{"}), "requirements"),
        (lambda e: e["annotations"].update({"dev.edgeml.rank": "best"}), "no rank"),
        (lambda e: e["annotations"].update({"dev.edgeml.rank": "-1"}), "no rank"),
        (lambda e: e["annotations"].update({"dev.edgeml.target": "a\nb"}), "not allowed"),
        (lambda e: e["annotations"].pop("dev.edgeml.target"), "lacks the annotation"),
    ],
)
def test_an_index_that_breaks_a_rule_is_refused_by_name(
    tmp_path: Path, change: Callable[[Any], None], word: str
) -> None:
    with pytest.raises(ReleaseError, match=word):
        tampered(tmp_path, lambda _: None, change)


def test_an_index_of_too_many_variants_or_none_is_refused(tmp_path: Path) -> None:
    layout, release = make_release(tmp_path)
    index = msgspec.json.decode(layout.blobs.read(release.digest, 10**6))
    for number, word in ((0, "no variant"), (2, "a variant twice"), (257, "length <= 256")):
        many = index | {"manifests": index["manifests"] * number}
        with pytest.raises(ReleaseError, match=word):
            read_release(layout.blobs.read, layout.blobs.put(msgspec.json.encode(many)))


def test_a_document_that_is_too_large_is_refused(tmp_path: Path) -> None:
    huge = Blobs(tmp_path).put(b" " * (2 << 20))
    with pytest.raises(ReleaseError, match="too large"):
        read_release(Blobs(tmp_path).read, huge)
    with pytest.raises(ReleaseError, match="too large"):
        read_release(lambda _digest, _limit: b" " * (2 << 20), huge)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "A" * 64, "../../etc/passwd"])
def test_what_is_no_digest_never_becomes_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ReleaseError, match="is no digest"):
        Blobs(tmp_path).path(digest)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b" " * (2 << 20)])
def test_a_layout_whose_index_cannot_be_read_is_said_so(tmp_path: Path, data: bytes) -> None:
    layout, _ = make_release(tmp_path)
    (layout.folder / "index.json").write_bytes(data)
    with pytest.raises(ReleaseError, match=r"index\.json"):
        layout.releases()


def test_what_is_no_evidence_is_not_read_as_such(tmp_path: Path) -> None:
    layout, release = make_release(tmp_path)
    with pytest.raises(ReleaseError, match="is no evidence"):
        read_evidence(layout.blobs.read, release.variants[0].digest)


VARIANTS = st.lists(
    st.tuples(
        st.sampled_from(["cpu-a", "cpu-b"]),
        st.integers(0, 2),
        st.sampled_from(["int8", "float32"]),
        st.binary(min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda v: (v[0], v[2], v[3]),
)


@settings(deadline=None, max_examples=40)
@given(VARIANTS, st.randoms(use_true_random=False))
def test_no_order_of_the_variants_changes_a_byte_of_the_release(
    variants: list[tuple[str, int, str, bytes]], random: Random
) -> None:
    found = set()
    for _ in range(2):
        random.shuffle(variants)
        builder = ReleaseBuilder("m", "1")
        for target, rank, precision, weights in variants:
            builder.add_variant(
                target=target,
                rank=rank,
                requires=Requirements(),
                format="onnx",
                precision=precision,
                quantization="",
                verification=Verification.ESTIMATED,
                files={"model": ("m.onnx", weights), "golden": ("g.npz", b"golden")},
            )
        with tempfile.TemporaryDirectory() as folder:
            layout = Layout.create(Path(folder))
            release = builder.write(layout)
            assert layout.releases() == [release]
            found.add((release.digest, tuple(layout.blobs.all())))
    assert len(found) == 1


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
