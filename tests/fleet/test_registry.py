from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sync.release import Layout, digest_of, oci
from edgeml.errors import ReleaseError, UserError
from fleet.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "registry")
    made.prepare()
    return made


def push(registry: Registry, data: bytes) -> str:
    upload = registry.begin_upload()
    registry.append(upload, data)
    registry.finish_upload(upload, digest_of(data))
    return digest_of(data)


def manifest(registry: Registry, layer: bytes = b"layer") -> bytes:
    config = push(registry, b"{}")
    digest = push(registry, layer)
    return oci.to_json(
        oci.Manifest(
            schema_version=2,
            media_type=oci.MANIFEST,
            config=oci.Descriptor(media_type=oci.EMPTY, digest=config, size=2),
            layers=(oci.Descriptor(media_type=oci.WEIGHT, digest=digest, size=len(layer)),),
        )
    )


def test_a_blob_with_another_digest_is_refused_and_leaves_nothing(registry: Registry) -> None:
    upload = registry.begin_upload()
    registry.append(upload, b"these bytes")
    with pytest.raises(ReleaseError, match="not what its digest says"):
        registry.finish_upload(upload, digest_of(b"other bytes"))
    assert list(registry.blobs.all()) == []
    with pytest.raises(ReleaseError, match="no such upload"):
        registry.upload_size(upload)


def test_a_manifest_is_taken_only_when_its_blobs_are_there(registry: Registry) -> None:
    data = manifest(registry)
    registry.blobs.remove(digest_of(b"layer"))
    with pytest.raises(ReleaseError, match="was not pushed before"):
        registry.put_manifest("digits", digest_of(data), oci.MANIFEST, data)
    assert registry.manifest("digits", digest_of(data)) is None


def test_a_manifest_that_lies_about_a_size_is_refused(registry: Registry) -> None:
    data = manifest(registry).replace(b'"size":5', b'"size":6')
    with pytest.raises(ReleaseError, match="another size"):
        registry.put_manifest("digits", digest_of(data), oci.MANIFEST, data)


def test_a_manifest_under_a_wrong_digest_is_refused(registry: Registry) -> None:
    with pytest.raises(ReleaseError, match="not what its digest says"):
        registry.put_manifest("digits", digest_of(b"x"), oci.MANIFEST, manifest(registry))


def test_a_tag_is_set_once(registry: Registry) -> None:
    first, second = manifest(registry, b"one"), manifest(registry, b"two")
    registry.put_manifest("digits", "1.0.0", oci.MANIFEST, first)
    registry.put_manifest("digits", "1.0.0", oci.MANIFEST, first)
    with pytest.raises(UserError, match="exists already"):
        registry.put_manifest("digits", "1.0.0", oci.MANIFEST, second)
    found = registry.manifest("digits", "1.0.0")
    assert found is not None
    assert found.data == first


def test_a_manifest_belongs_to_the_model_it_was_pushed_to(registry: Registry) -> None:
    data = manifest(registry)
    registry.put_manifest("digits", digest_of(data), oci.MANIFEST, data)
    assert registry.manifest("faces", digest_of(data)) is None


def test_a_blob_that_was_damaged_on_disk_is_not_given_out_as_a_manifest(
    registry: Registry,
) -> None:
    data = manifest(registry)
    registry.put_manifest("digits", digest_of(data), oci.MANIFEST, data)
    registry.blobs.path(digest_of(data)).write_bytes(b"something else")
    with pytest.raises(ReleaseError, match="damaged"):
        registry.manifest("digits", digest_of(data))


@settings(deadline=None, max_examples=40)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["config", "layers", "digest", "size"]), inner)
            ),
            max_leaves=8,
        ).map(oci.to_json),
    ),
    st.sampled_from([oci.MANIFEST, oci.INDEX, "text/plain", ""]),
)
def test_any_bytes_as_a_manifest_are_an_error_with_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str
) -> None:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    with pytest.raises(ReleaseError):
        registry.put_manifest("digits", digest_of(data), kind, data)


@given(st.text(max_size=80))
def test_no_name_leads_out_of_the_registry(name: str) -> None:
    registry = Registry(Path("/nowhere"))
    for look in (
        lambda: registry.manifest(name, "1.0.0"),
        lambda: registry.manifest("digits", name),
        lambda: registry.referrers(name, "sha256:" + "0" * 64),
    ):
        try:
            assert not look()
        except ReleaseError:
            continue


def test_a_release_with_a_missing_blob_is_refused(registry: Registry, release_folder: Path) -> None:
    layout = Layout.open(release_folder)
    release = layout.release()
    for digest in layout.blobs.all():
        registry.blobs.put(layout.blobs.path(digest).read_bytes())
    assert registry.release(release.digest) == release
    registry.blobs.remove(release.variants[0].file("model").digest)
    with pytest.raises(ReleaseError, match="incomplete"):
        registry.release(release.digest)


def test_pushes_that_were_left_long_ago_are_dropped(registry: Registry) -> None:
    import os

    old, new = registry.begin_upload(), registry.begin_upload()
    os.utime(registry.folder / "uploads" / old, (0, 0))
    registry.prepare()
    assert registry.upload_size(new) == 0
    with pytest.raises(ReleaseError):
        registry.upload_size(old)
