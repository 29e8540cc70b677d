"""Releases: OCI image layouts of ModelPack manifests, written reproducibly, read strictly."""

from cloud_sync.release.blobs import Blobs, digest_of, file_digest, is_digest, write_atomically
from cloud_sync.release.builder import ReleaseBuilder
from cloud_sync.release.layout import Layout, read_evidence, write_evidence
from cloud_sync.release.model import Release, ReleaseFile, Variant
from cloud_sync.release.reading import read_release
from cloud_sync.release.resolution import Rejection, Resolution, resolve

__all__ = [
    "Blobs",
    "Layout",
    "Rejection",
    "Release",
    "ReleaseBuilder",
    "ReleaseFile",
    "Resolution",
    "Variant",
    "digest_of",
    "file_digest",
    "is_digest",
    "read_evidence",
    "read_release",
    "resolve",
    "write_atomically",
    "write_evidence",
]
