"""The OCI and ModelPack documents of a release, as they stand in JSON.

Sources: OCI image specification 1.1 (image index, manifest, descriptor, image layout) and the
CNCF ModelPack model specification (`application/vnd.cncf.model.*`).
"""

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from edgeml.errors import ReleaseError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
RELEASE_ARTIFACT = "application/vnd.edgeml.release.v1+json"
EVIDENCE_ARTIFACT = "application/vnd.edgeml.evidence.v1+json"
MODEL_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DATASET = "application/vnd.cncf.model.dataset.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
LAYER_TYPES = frozenset({WEIGHT, WEIGHT_CONFIG, DATASET, DOC})

FILEPATH = "org.cncf.model.filepath"
REF_NAME = "org.opencontainers.image.ref.name"
MODEL = "dev.edgeml.model"
VERSION = "dev.edgeml.version"
TARGET = "dev.edgeml.target"
RANK = "dev.edgeml.rank"
REQUIRES = "dev.edgeml.requires"
VERIFICATION = "dev.edgeml.verification"
ROLE = "dev.edgeml.role"

MAX_DOCUMENT_BYTES = 1 << 20
MAX_BLOB_BYTES = 16 << 30
MAX_VARIANTS = 256
MAX_LAYERS = 64

Text = Annotated[str, Meta(max_length=65536)]
Digest = Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
T = TypeVar("T")


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """Operating system and architecture, as Go names them."""

    architecture: Text
    os: Text


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Points to a blob: media type, digest and size."""

    media_type: Text
    digest: Digest
    size: Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
    artifact_type: Text | None = None
    platform: Platform | None = None
    annotations: dict[str, Text] = {}


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image index."""

    schema_version: Annotated[int, Meta(ge=2, le=2)]
    media_type: Text = INDEX
    artifact_type: Text | None = None
    manifests: Annotated[tuple[Descriptor, ...], Meta(max_length=MAX_VARIANTS)]
    annotations: dict[str, Text] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An image manifest; with `subject` it is an artifact about another one."""

    schema_version: Annotated[int, Meta(ge=2, le=2)]
    media_type: Text
    artifact_type: Text | None = None
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Meta(max_length=MAX_LAYERS)]
    subject: Descriptor | None = None
    annotations: dict[str, Text] = {}


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """ModelPack's description of what the weights are."""

    format: Text
    precision: Text
    quantization: Text = ""
    architecture: Text = ""


class ModelDescriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """ModelPack's name and version."""

    name: Text
    version: Text


class ModelRootFs(msgspec.Struct, frozen=True, kw_only=True, rename={"diff_ids": "diffIds"}):
    """ModelPack's list of the layers' digests."""

    type: Text = "layers"
    diff_ids: Annotated[tuple[Digest, ...], Meta(max_length=MAX_LAYERS)] = ()


class ModelPack(msgspec.Struct, frozen=True, kw_only=True):
    """The config blob of a variant."""

    descriptor: ModelDescriptor
    config: ModelConfig
    modelfs: ModelRootFs = ModelRootFs()


def tag_of(text: str) -> str:
    """A text as a tag: what no tag may have becomes a dash.

    >>> tag_of("1.2.0+b1-cpu/x86-64")
    '1.2.0-b1-cpu-x86-64'
    """
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip(".-")[:128]


def to_json(document: Any) -> bytes:
    """Encode a document; the same value gives the same bytes."""
    return msgspec.json.encode(document, order="deterministic")


def from_json(data: bytes, kind: type[T], what: str) -> T:
    """Decode a document strictly.

    Raises:
        ReleaseError: it is not JSON or not of this kind.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ReleaseError(f"The {what} cannot be read.", why=f"{error}.") from None
