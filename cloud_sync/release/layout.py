"""An OCI image layout on disk: the folder that `edgeml convert` writes and `push` sends."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cloud_sync.evidence import Evidence
from cloud_sync.release import oci
from cloud_sync.release.blobs import Blobs, write_atomically
from cloud_sync.release.model import Release
from cloud_sync.release.reading import ReadBlob, read_release, verified
from edgeml.errors import ReleaseError

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_MEDIA_TYPES = {".html": "text/html", ".json": "application/json", ".log": "text/plain"}
_ANY_TYPE = "application/octet-stream"
_MAX_EVIDENCE = 16 << 20


class Layout:
    """A folder with `oci-layout`, `index.json` and `blobs/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = Blobs(folder)

    @classmethod
    def create(cls, folder: Path) -> "Layout":
        """Make an empty layout in a folder that exists or not, or open the one that is there."""
        folder.mkdir(parents=True, exist_ok=True)
        layout = cls(folder)
        if not (folder / "index.json").exists():
            write_atomically(folder / "oci-layout", _LAYOUT)
            layout.write_index(oci.Index(schema_version=2, manifests=()))
        return layout

    @classmethod
    def open(cls, folder: Path) -> "Layout":
        """Open a layout.

        Raises:
            ReleaseError: the folder is none.
        """
        if not (folder / "oci-layout").is_file() or not (folder / "index.json").is_file():
            raise ReleaseError(
                f"{folder} is no release folder.",
                why="It has no oci-layout and index.json.",
                fix="Name the folder that `edgeml convert --out` wrote.",
            )
        return cls(folder)

    def index(self) -> oci.Index:
        """What the layout lists.

        Raises:
            ReleaseError: it cannot be read.
        """
        path = self.folder / "index.json"
        try:
            with path.open("rb") as stream:
                data = stream.read(oci.MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            raise ReleaseError(f"{path} cannot be read.", why=f"{error.strerror}.") from None
        if len(data) > oci.MAX_DOCUMENT_BYTES:
            raise ReleaseError(f"{path} is too large.")
        return oci.from_json(data, oci.Index, "layout's index.json")

    def write_index(self, index: oci.Index) -> None:
        """Replace `index.json`."""
        write_atomically(self.folder / "index.json", oci.to_json(index))

    def releases(self) -> list[Release]:
        """Every release in the layout.

        Raises:
            ReleaseError: one of them cannot be read.
        """
        return [
            read_release(self.blobs.read, entry.digest)
            for entry in self.index().manifests
            if entry.artifact_type == oci.RELEASE_ARTIFACT
        ]

    def release(self, version: str | None = None) -> Release:
        """The release of that version, or the only one.

        Raises:
            ReleaseError: there is none, or several and no version was named.
        """
        found = [r for r in self.releases() if version in {None, r.version}]
        if len(found) != 1:
            names = ", ".join(r.name for r in self.releases()) or "none"
            raise ReleaseError(f"{self.folder} does not name one release.", why=f"It has {names}.")
        return found[0]

    def evidence_digests(self, release: str) -> list[str]:
        """The digests of the evidence artifacts about a release."""
        return [
            entry.digest
            for entry in self.index().manifests
            if entry.artifact_type == oci.EVIDENCE_ARTIFACT
            and entry.annotations.get("dev.edgeml.subject") == release
        ]

    def evidence(self, release: str) -> list[Evidence]:
        """All evidence about a release that travels with it.

        Raises:
            ReleaseError: it cannot be read.
        """
        return [
            record
            for digest in self.evidence_digests(release)
            for record in read_evidence(self.blobs.read, digest)
        ]

    def documents(self, release: str) -> dict[str, bytes]:
        """The files beside the evidence about a release, by name: reports, bitstreams, Verilog.

        Raises:
            ReleaseError: one cannot be read, or has no name of a file.
        """
        found = {}
        for digest in self.evidence_digests(release):
            data = verified(self.blobs.read, digest, oci.MAX_DOCUMENT_BYTES)
            for layer in oci.from_json(data, oci.Manifest, "evidence").layers[1:]:
                name = layer.annotations.get(oci.FILEPATH, "")
                if not name or Path(name).name != name:
                    raise ReleaseError(f"{name!r} is no file's name.")
                found[name] = verified(self.blobs.read, layer.digest, _MAX_EVIDENCE)
        return found

    def add(self, entry: oci.Descriptor) -> None:
        """List a manifest or index, once."""
        index = self.index()
        if all(known.digest != entry.digest for known in index.manifests):
            self.write_index(msgspec.structs.replace(index, manifests=(*index.manifests, entry)))


def write_evidence(
    layout: Layout,
    release: Release,
    records: list[Evidence],
    documents: Mapping[str, bytes] | None = None,
) -> str:
    """Add evidence as an OCI artifact whose `subject` is the release; returns its digest.

    Args:
        layout: where to.
        release: what it is about.
        records: the evidence, the artifact's first layer.
        documents: `.html` and `.json`, by file name, each a layer of its own.
    """
    layers = [_layer(layout, "evidence.json", "application/json", oci.to_json(records))]
    layers += [
        _layer(layout, name, _MEDIA_TYPES.get(Path(name).suffix, _ANY_TYPE), body)
        for name, body in sorted((documents or {}).items())
    ]
    manifest = oci.Manifest(
        schema_version=2,
        media_type=oci.MANIFEST,
        artifact_type=oci.EVIDENCE_ARTIFACT,
        config=oci.Descriptor(media_type=oci.EMPTY, digest=layout.blobs.put(b"{}"), size=2),
        layers=tuple(layers),
        subject=oci.Descriptor(media_type=oci.INDEX, digest=release.digest, size=release.size),
    )
    data = oci.to_json(manifest)
    digest = layout.blobs.put(data)
    layout.add(
        oci.Descriptor(
            media_type=oci.MANIFEST,
            artifact_type=oci.EVIDENCE_ARTIFACT,
            digest=digest,
            size=len(data),
            annotations={"dev.edgeml.subject": release.digest},
        )
    )
    return digest


def _layer(layout: Layout, name: str, media_type: str, body: bytes) -> oci.Descriptor:
    return oci.Descriptor(
        media_type=media_type,
        digest=layout.blobs.put(body),
        size=len(body),
        annotations={oci.FILEPATH: name},
    )


def read_evidence(read: ReadBlob, digest: str) -> list[Evidence]:
    """Read an evidence artifact.

    Raises:
        ReleaseError: it is none, or damaged.
    """
    data = verified(read, digest, oci.MAX_DOCUMENT_BYTES)
    manifest = oci.from_json(data, oci.Manifest, "evidence")
    if (
        manifest.artifact_type != oci.EVIDENCE_ARTIFACT
        or manifest.subject is None
        or not manifest.layers
    ):
        raise ReleaseError(f"{digest} is no evidence.")
    body = verified(read, manifest.layers[0].digest, _MAX_EVIDENCE)
    return oci.from_json(body, list[Evidence], "evidence")
