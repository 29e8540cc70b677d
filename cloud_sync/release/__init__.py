"""Releases: OCI image layouts of ModelPack manifests, written reproducibly, read strictly."""

from cloud_sync.release.blobs import Blobs, digest_of, file_digest, is_digest, write_atomically
from cloud_sync.release.builder import ReleaseBuilder
from cloud_sync.release.layout import Layout, read_evidence, write_evidence
from cloud_sync.release.model import Listed, Release, ReleaseFile, ReleaseIndex, Variant
from cloud_sync.release.reading import read_index, read_release, read_variant
from cloud_sync.release.resolution import Rejection, Resolution, choose, resolve

__all__ = [
    "Blobs",
    "Layout",
    "Listed",
    "Rejection",
    "Release",
    "ReleaseBuilder",
    "ReleaseFile",
    "ReleaseIndex",
    "Resolution",
    "Variant",
    "choose",
    "digest_of",
    "file_digest",
    "is_digest",
    "read_evidence",
    "read_index",
    "read_release",
    "read_variant",
    "resolve",
    "write_atomically",
    "write_evidence",
]
