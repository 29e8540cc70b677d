"""Models and releases: pushed, listed, collected."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from cloud_sync.release import Blobs, Layout
from cloud_sync.transfer import OciClient
from fleet.client.connection import Connection, part
from fleet.resources import CollectInfo, ModelInfo, ReleaseInfo

OnBlob = Callable[[str, int], None]


class ReleaseCalls(Connection):
    """Models and releases: pushed, listed, collected."""

    def push(
        self,
        folder: Path,
        version: str | None = None,
        *,
        on_blob: OnBlob | None = None,
        reason: str = "",
    ) -> ReleaseInfo:
        """Push a release from a folder that `edgeml convert` wrote, and register it.

        Raises:
            ReleaseError: the folder holds no such release, or it is damaged.
        """
        layout = Layout.open(folder)
        release = layout.release(version)
        registry = OciClient(self._base_url, self._auth)
        try:
            registry.push(layout, release, on_blob)
        finally:
            registry.close()
        body = {"model": release.model, "digest": release.digest, "reason": reason}
        return cast("ReleaseInfo", self._post("/releases", body))

    def fetch_blob(self, model: str, digest: str, size: int, blobs: Blobs) -> None:
        """Fetch a blob of a release from the fleet's registry into a store."""
        registry = OciClient(self._base_url, self._auth)
        try:
            registry.fetch_blob(model, digest, size, blobs)
        finally:
            registry.close()

    def collect(self, *, dry_run: bool, keep: int, grace_s: float, reason: str = "") -> CollectInfo:
        """Remove what no release that is kept refers to."""
        body = {"dry_run": dry_run, "keep": keep, "grace_s": grace_s, "reason": reason}
        return cast("CollectInfo", self._post("/releases/collect", body))

    def models(self) -> list[ModelInfo]:
        """All models."""
        return list(self._pages("/models"))

    def releases(self, model: str = "") -> list[ReleaseInfo]:
        """All releases, newest first."""
        return list(self._pages("/releases", model=model))

    def model(self, model: str) -> ModelInfo:
        """One model."""
        return cast("ModelInfo", self._get(f"/models/{part(model)}"))

    def release(self, model: str, version: str) -> ReleaseInfo:
        """One release."""
        return cast("ReleaseInfo", self._get(f"/releases/{part(model)}/{part(version)}"))
