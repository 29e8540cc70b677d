"""Reads a release strictly, from wherever its blobs come.

Sizes, digests, media types, paths and counts are checked; what does not hold is refused with
its name. Nothing is ever unpickled or executed.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

import msgspec

from cloud_sync.release import oci
from cloud_sync.release.blobs import digest_of
from cloud_sync.release.model import Listed, Release, ReleaseFile, ReleaseIndex, Variant
from edgeml.errors import ReleaseError
from hardware.requirements import Requirements

ReadBlob = Callable[[str, int], bytes]

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_NAME = 128
_MAX_PATH = 255


def read_release(read: ReadBlob, digest: str) -> Release:
    """Read the release whose index has this digest, with all of its variants.

    Args:
        read: returns the bytes of a blob, given its digest and the most bytes to read.
        digest: of the image index.

    Raises:
        ReleaseError: something in it is missing, damaged, or not allowed.
    """
    index = read_index(read, digest)
    return Release(
        model=index.model,
        version=index.version,
        digest=index.digest,
        size=index.size,
        variants=tuple(_variant(read, listed) for listed in index.variants),
    )


def read_index(read: ReadBlob, digest: str) -> ReleaseIndex:
    """Read what a release's index says, and nothing that it points to.

    Raises:
        ReleaseError: it is missing, damaged, or something in it is not allowed.
    """
    data = verified(read, digest, oci.MAX_DOCUMENT_BYTES)
    index = oci.from_json(data, oci.Index, "release index")
    if index.media_type != oci.INDEX or index.artifact_type != oci.RELEASE_ARTIFACT:
        raise ReleaseError(
            f"{digest} is no edgeml release.", why=f"Its artifact type is {index.artifact_type}."
        )
    model = check_model(_annotation(index.annotations, oci.MODEL, "release"))
    version = check_version(_annotation(index.annotations, oci.VERSION, "release"))
    variants = tuple(_listed(entry) for entry in index.manifests)
    if not variants:
        raise ReleaseError(f"{model}:{version} has no variant.")
    if len({variant.digest for variant in variants}) != len(variants):
        raise ReleaseError(f"{model}:{version} lists a variant twice.")
    return ReleaseIndex(
        model=model, version=version, digest=digest, size=len(data), variants=variants
    )


def read_variant(read: ReadBlob, release: str, variant: str) -> Variant:
    """Read one variant of a release: the index, its manifest and its config alone.

    Raises:
        ReleaseError: the release has none such, or something is missing, damaged, not allowed.
    """
    index = read_index(read, release)
    for listed in index.variants:
        if listed.digest == variant:
            return _variant(read, listed)
    raise ReleaseError(f"{index.name} has no variant {variant}.")


def check_model(name: str) -> str:
    """Return a model's name if it can be one (it is also an OCI repository name)."""
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise ReleaseError(
            f"{name[:_MAX_NAME]!r} cannot be a model's name.",
            fix="Use lower-case letters, digits and . _ - between them.",
        )
    return name


def check_version(version: str) -> str:
    """Return a release's version if it can be one (it is also an OCI tag)."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(
            f"{version[:_MAX_NAME]!r} cannot be a version.", fix="Use something like 1.2.0."
        )
    return version


def _listed(entry: oci.Descriptor) -> Listed:
    if entry.media_type != oci.MANIFEST or entry.artifact_type != oci.MODEL_ARTIFACT:
        raise ReleaseError(
            f"The manifest {entry.digest} is no model.", why=f"It is {entry.artifact_type}."
        )
    requires = oci.from_json(
        _annotation(entry.annotations, oci.REQUIRES, "variant").encode(),
        Requirements,
        "variant's requirements",
    )
    platform = entry.platform
    if platform is None or (platform.os, platform.architecture) != (
        requires.os,
        requires.architecture,
    ):
        raise ReleaseError(f"The manifest {entry.digest} disagrees with itself on its platform.")
    rank = _annotation(entry.annotations, oci.RANK, "variant")
    if not re.fullmatch(r"[0-9]{1,4}", rank):
        raise ReleaseError(f"The manifest {entry.digest} has no rank.", why=f"It says {rank!r}.")
    return Listed(
        digest=entry.digest,
        size=entry.size,
        target=_label(entry.annotations, oci.TARGET, "variant"),
        rank=int(rank),
        requires=requires,
        verification=_label(entry.annotations, oci.VERIFICATION, "variant"),
    )


def _variant(read: ReadBlob, listed: Listed) -> Variant:
    data = verified(read, listed.digest, oci.MAX_DOCUMENT_BYTES)
    if len(data) != listed.size:
        raise ReleaseError(
            f"The manifest {listed.digest} has the wrong size.",
            why=f"The index says {listed.size} bytes, it has {len(data)}.",
        )
    manifest = oci.from_json(data, oci.Manifest, "variant's manifest")
    if manifest.media_type != oci.MANIFEST or manifest.artifact_type != oci.MODEL_ARTIFACT:
        raise ReleaseError(
            f"The manifest {listed.digest} is no model.", why=f"It is {manifest.artifact_type}."
        )
    pack = _pack(read, listed.digest, manifest)
    files = tuple(_file(layer) for layer in manifest.layers)
    for key in ("role", "path"):
        names = [getattr(file, key) for file in files]
        if len(set(names)) != len(names):
            raise ReleaseError(f"The manifest {listed.digest} has a {key} twice.")
    if not any(file.role == "model" for file in files):
        raise ReleaseError(f"The manifest {listed.digest} has no model file.")
    return Variant(
        **msgspec.structs.asdict(listed),
        format=pack.config.format,
        precision=pack.config.precision,
        quantization=pack.config.quantization,
        files=files,
    )


def _pack(read: ReadBlob, digest: str, manifest: oci.Manifest) -> oci.ModelPack:
    config = manifest.config
    if config.media_type != oci.MODEL_CONFIG:
        raise ReleaseError(f"The manifest {digest} has no model config.")
    data = verified(read, config.digest, oci.MAX_DOCUMENT_BYTES)
    if len(data) != config.size:
        raise ReleaseError(
            f"The config {config.digest} has the wrong size.",
            why=f"The manifest says {config.size} bytes, it has {len(data)}.",
        )
    pack = oci.from_json(data, oci.ModelPack, "variant's config")
    if pack.modelfs.diff_ids != tuple(layer.digest for layer in manifest.layers):
        raise ReleaseError(
            f"The manifest {digest} disagrees with itself on its files.",
            why="Its config lists others.",
        )
    return pack


def _file(layer: oci.Descriptor) -> ReleaseFile:
    if layer.media_type not in oci.LAYER_TYPES:
        raise ReleaseError(
            f"The layer {layer.digest} is of an unknown kind.", why=f"It is {layer.media_type}."
        )
    path = _annotation(layer.annotations, oci.FILEPATH, "layer")
    pure = PurePosixPath(path)
    if (
        not 0 < len(path.encode()) <= _MAX_PATH
        or pure.is_absolute()
        or str(pure) != path
        or ".." in pure.parts
        or "\\" in path
        or any(ord(letter) < ord(" ") for letter in path)
    ):
        raise ReleaseError(
            f"The layer {layer.digest} has a path that is not allowed.",
            why=f"{path[:_MAX_NAME]!r} is absolute, leads out of the release, is too long or "
            "not plain.",
        )
    return ReleaseFile(
        role=_label(layer.annotations, oci.ROLE, "layer"),
        path=path,
        media_type=layer.media_type,
        digest=layer.digest,
        size=layer.size,
    )


def _annotation(annotations: dict[str, str], key: str, what: str) -> str:
    try:
        return annotations[key]
    except KeyError:
        raise ReleaseError(f"A {what} lacks the annotation {key}.") from None


def _label(annotations: dict[str, str], key: str, what: str) -> str:
    """An annotation that is one plain word: it is printed, compared and stored everywhere."""
    value = _annotation(annotations, key, what)
    if not _LABEL.fullmatch(value):
        raise ReleaseError(
            f"A {what} has the annotation {key} that is not allowed.",
            why=f"It is {value[:_MAX_NAME]!r}.",
        )
    return value


def verified(read: ReadBlob, digest: str, max_bytes: int) -> bytes:
    """Read a blob and check it, whatever `read` checked.

    Raises:
        ReleaseError: it is too large or not what its digest says.
    """
    data = read(digest, max_bytes)
    if len(data) > max_bytes:
        raise ReleaseError(f"{digest} is too large.", why=f"At most {max_bytes} bytes are read.")
    if digest_of(data) != digest:
        raise ReleaseError(
            "A document is not what its digest says.",
            why=f"Wanted {digest}, got {digest_of(data)}.",
        )
    return data
