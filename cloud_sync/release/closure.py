"""Which blobs a release is made of: what is kept, travels together, or may be removed."""

from cloud_sync.release import oci
from cloud_sync.release.model import Release, Variant
from cloud_sync.release.reading import ReadBlob

# Files that a device has no use for: reports are read by people.
NOT_ON_DEVICES = frozenset({"report", "recipe"})


def documents(read: ReadBlob, release: Release) -> set[str]:
    """The blobs that a release is read from, whichever variant runs: index, manifests, configs.

    Raises:
        ReleaseError: one of them is missing or damaged.
    """
    manifests = {variant.digest for variant in release.variants}
    configs = {_manifest(read, digest).config.digest for digest in manifests}
    return {release.digest} | manifests | configs


def documents_of(read: ReadBlob, release: str, variant: Variant) -> set[str]:
    """The blobs that one variant of a release is read from: index, manifest and config.

    Raises:
        ReleaseError: one of them is missing or damaged.
    """
    return {release, variant.digest, _manifest(read, variant.digest).config.digest}


def on_devices(variant: Variant) -> dict[str, int]:
    """The files, with their sizes, that a device keeps of a variant."""
    return {file.digest: file.size for file in variant.files if file.role not in NOT_ON_DEVICES}


def artifact(read: ReadBlob, digest: str) -> set[str]:
    """The blobs of a manifest that is no release, such as evidence: itself, config, layers.

    Raises:
        ReleaseError: it is missing or damaged.
    """
    manifest = _manifest(read, digest)
    return {digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}


def _manifest(read: ReadBlob, digest: str) -> oci.Manifest:
    return oci.from_json(read(digest, oci.MAX_DOCUMENT_BYTES), oci.Manifest, "manifest")
