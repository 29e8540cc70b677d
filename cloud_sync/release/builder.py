"""Writes a release into a layout: no clock, no host name, no random order.

The same model, version, variants and files give the same digest, byte for byte; a file that
several variants share is one blob.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cloud_sync.evidence import Verification
from cloud_sync.release import oci
from cloud_sync.release.blobs import Blobs
from cloud_sync.release.layout import Layout
from cloud_sync.release.model import Release
from cloud_sync.release.reading import check_model, check_version, read_release
from edgeml.errors import ReleaseError
from hardware.requirements import Requirements

Content = bytes | Path

_MEDIA = {
    "model": oci.WEIGHT,
    "pipeline": oci.WEIGHT_CONFIG,
    "recipe": oci.WEIGHT_CONFIG,
    "labels": oci.WEIGHT_CONFIG,
    "golden": oci.DATASET,
    "recorded": oci.DATASET,
    "report": oci.DOC,
}


class _Variant(msgspec.Struct, frozen=True, kw_only=True):
    target: str
    rank: int
    requires: Requirements
    config: oci.ModelConfig
    verification: str
    files: dict[str, tuple[str, Content]]


class ReleaseBuilder:
    """Collects variants and writes them as one release."""

    def __init__(self, model: str, version: str) -> None:
        self._model = check_model(model)
        self._version = check_version(version)
        self._variants: list[_Variant] = []

    def add_variant(
        self,
        *,
        target: str,
        rank: int,
        requires: Requirements,
        format: str,  # noqa: A002 -- ModelPack's word
        precision: str,
        quantization: str,
        verification: Verification,
        files: Mapping[str, tuple[str, Content]],
    ) -> None:
        """Add a variant; `files` maps a role to its path in the release and its content."""
        unknown = set(files) - set(_MEDIA)
        if unknown or "model" not in files:
            raise ReleaseError(
                "A variant's files are not right.",
                why=f"Unknown roles: {', '.join(sorted(unknown)) or 'none'}; a model is needed.",
            )
        config = oci.ModelConfig(format=format, precision=precision, quantization=quantization)
        self._variants.append(
            _Variant(
                target=target,
                rank=rank,
                requires=requires,
                config=config,
                verification=str(verification),
                files=dict(files),
            )
        )

    def write(self, layout: Layout) -> Release:
        """Write the release and list it in the layout's index.

        Raises:
            ReleaseError: it has no variant, or would not be read back.
        """
        entries = [
            ((v.target, v.rank, v.config.precision), self._manifest(layout.blobs, v))
            for v in self._variants
        ]
        entries.sort(key=lambda pair: (pair[0], pair[1].digest))
        index = oci.Index(
            schema_version=2,
            artifact_type=oci.RELEASE_ARTIFACT,
            manifests=tuple(entry for _, entry in entries),
            annotations={oci.MODEL: self._model, oci.VERSION: self._version},
        )
        data = oci.to_json(index)
        digest = layout.blobs.put(data)
        release = read_release(layout.blobs.read, digest)
        layout.add(
            oci.Descriptor(
                media_type=oci.INDEX,
                artifact_type=oci.RELEASE_ARTIFACT,
                digest=digest,
                size=len(data),
                annotations={oci.REF_NAME: release.name},
            )
        )
        return release

    def _manifest(self, blobs: Blobs, variant: _Variant) -> oci.Descriptor:
        layers = tuple(
            _layer(blobs, role, path, content)
            for role, (path, content) in sorted(variant.files.items())
        )
        pack = oci.ModelPack(
            descriptor=oci.ModelDescriptor(name=self._model, version=self._version),
            config=variant.config,
            modelfs=oci.ModelRootFs(diff_ids=tuple(layer.digest for layer in layers)),
        )
        config = oci.to_json(pack)
        manifest = oci.Manifest(
            schema_version=2,
            media_type=oci.MANIFEST,
            artifact_type=oci.MODEL_ARTIFACT,
            config=oci.Descriptor(
                media_type=oci.MODEL_CONFIG, digest=blobs.put(config), size=len(config)
            ),
            layers=layers,
            # two targets may share every file, and are two variants all the same
            annotations={oci.TARGET: variant.target},
        )
        data = oci.to_json(manifest)
        return oci.Descriptor(
            media_type=oci.MANIFEST,
            artifact_type=oci.MODEL_ARTIFACT,
            digest=blobs.put(data),
            size=len(data),
            platform=oci.Platform(
                os=variant.requires.os, architecture=variant.requires.architecture
            ),
            annotations={
                oci.TARGET: variant.target,
                oci.RANK: str(variant.rank),
                oci.REQUIRES: oci.to_json(variant.requires).decode(),
                oci.VERIFICATION: variant.verification,
            },
        )


def _layer(blobs: Blobs, role: str, path: str, content: Content) -> oci.Descriptor:
    digest = blobs.put(content) if isinstance(content, bytes) else blobs.put_file(content)
    return oci.Descriptor(
        media_type=_MEDIA[role],
        digest=digest,
        size=blobs.path(digest).stat().st_size,
        annotations={oci.FILEPATH: path, oci.ROLE: role},
    )
