"""The releases on this device: verified blobs, and nothing that no release refers to."""

from collections.abc import Iterable
from pathlib import Path

from cloud_sync.release import Blobs, Release, Variant, read_release
from cloud_sync.release.oci import MAX_DOCUMENT_BYTES, Manifest, from_json


class ReleaseStore:
    """Blobs below the agent's data folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.blobs = Blobs(folder)

    def release(self, digest: str) -> Release:
        """A release whose documents are here.

        Raises:
            ReleaseError: something of it is missing or damaged.
        """
        return read_release(self.blobs.read, digest)

    def variant(self, release: str, variant: str) -> Variant:
        """A variant of a release that is here."""
        return self.release(release).variant(variant)

    def path(self, variant: Variant, role: str) -> Path:
        """Where a variant's file is."""
        return self.blobs.path(variant.file(role).digest)

    def keep_only(self, wanted: Iterable[tuple[str, str]]) -> int:
        """Remove every blob that none of these (release, variant) refers to; returns how many."""
        keep: set[str] = set()
        for release, variant in wanted:
            keep |= self._refers(release, variant)
        stale = [digest for digest in self.blobs.all() if digest not in keep]
        for digest in stale:
            self.blobs.remove(digest)
        return len(stale)

    def _refers(self, release: str, variant: str) -> set[str]:
        if not self.blobs.has(release):
            return set()
        found = self.release(release)
        # A release's documents are needed to read it, whichever variant runs.
        keep = {release, *(v.digest for v in found.variants)}
        for entry in found.variants:
            manifest = from_json(
                self.blobs.read(entry.digest, MAX_DOCUMENT_BYTES), Manifest, "variant's manifest"
            )
            keep.add(manifest.config.digest)
        return keep | {file.digest for file in found.variant(variant).files}
