"""Brings a release onto the device: its documents, and the files of one variant.

Each model has one of its own, with a connection of its own; what is here is not fetched again.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloud_sync.messages import DesiredModel
from cloud_sync.release import Release, Variant, read_release
from edge_agent.failpoints import reach
from edge_agent.store import ReleaseStore
from edgeml.errors import ReleaseError

if TYPE_CHECKING:
    from cloud_sync.transfer import OciClient

# Makes the registry's client of how it sleeps.
Connect = Callable[[Callable[[float], None]], "OciClient"]


class Interrupted(Exception):  # noqa: N818 -- no error: something else is due first
    """The work is left as it is; where it is still due, the next turn goes on with it."""


class Fetcher:
    """See the module.

    Args:
        model: whose releases.
        store: where they go.
        connect: makes the connection to the registry.
        wake: when it is set, what takes long raises `Interrupted`.
    """

    def __init__(
        self, model: str, store: ReleaseStore, connect: Connect, wake: threading.Event
    ) -> None:
        self._model = model
        self._store = store
        self._connect = connect
        self._wake = wake
        self._connected: OciClient | None = None

    def close(self) -> None:
        """Close the connections."""
        if self._connected is not None:
            self._connected.close()

    def release(self, desired: DesiredModel) -> Release:
        """Read the release from the registry and keep the documents that it is read from.

        Raises:
            RemoteError: the registry cannot be asked now.
            ReleaseError: what it has is not the release.
        """

        def read(digest: str, limit: int) -> bytes:
            data = self._store.document(digest, limit)
            if data is None:
                data = self._registry.document(self._model, digest, limit)
                self._store.blobs.put(data)
                reach("document-stored")
            return data

        return read_release(read, desired.release)

    def missing(self, variant: Variant) -> dict[str, int]:
        """The blobs, with their sizes, that are not here or not whole."""
        return {d: n for d, n in self._store.needed(variant).items() if not self._is_here(d)}

    def files(self, variant: Variant) -> None:
        """Fetch what is missing of a variant.

        Raises:
            DeviceError: the disk has no room for it.
            RemoteError: the registry cannot be asked now.
            ReleaseError: a blob is not what its digest says.
        """
        missing = self.missing(variant)
        self._store.require_room(sum(missing.values()))
        for digest, size in missing.items():
            # Another model's release may hold the same file.
            with self._store.alone_with(digest, self._pause):
                self._registry.fetch_blob(
                    self._model, digest, size, self._store.blobs, self._on_bytes
                )
            reach("downloaded-one")

    @property
    def _registry(self) -> "OciClient":
        # Late: a device that only runs what it has needs none.
        if self._connected is None:
            self._connected = self._connect(self._pause)
        return self._connected

    def _is_here(self, digest: str) -> bool:
        try:
            self._store.check(digest)
        except ReleaseError:
            return False
        return True

    def _on_bytes(self, _count: int) -> None:
        reach("download-bytes")
        self._pause(0)

    def _pause(self, seconds: float) -> None:
        if self._wake.wait(seconds):
            raise Interrupted
