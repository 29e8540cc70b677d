"""Whether this device trusts a release: asked once, before a byte of its model is fetched.

A refusal goes to the fleet as a security event, too: an honest fleet wants no release that
nobody has signed. A device that was enrolled without a root checks nothing.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_sync.messages import SecurityKind, SecurityRecord
from cloud_sync.metadata_error import MetadataError
from edgeml.errors import RemoteError, TrustError

if TYPE_CHECKING:
    import httpx

    from cloud_sync.metering import Meter
    from cloud_sync.trust.releases import ReleaseTrust
    from cloud_sync.trust.tls import Now
    from edge_agent.trust.identity import Identity

CONNECT_S = 5.0
READ_S = 15.0


class ReleaseCheck:
    """See the module. Safe to use from several threads.

    Args:
        identity: who this device is, and the root that it was enrolled with.
        auth: the device's credentials at the fleet; None while it is not asked yet.
        proven: the latest time that the fleet has proven, in Unix seconds.
        tell: takes what the fleet should hear of a refusal.
        meter: counts what the metadata cost.
        root: the root of this moment, where it may be learned later than at the enrolment.
        now: the time by which the fleet's certificate is judged; the wall clock by default.
    """

    def __init__(
        self,
        identity: "Identity",
        auth: "Callable[[], httpx.Auth | None]",
        proven: Callable[[], float],
        tell: Callable[[SecurityRecord], None],
        meter: "Meter | None" = None,
        *,
        root: Callable[[], bytes | None] | None = None,
        now: "Now | None" = None,
    ) -> None:
        self._identity = identity
        self._auth = auth
        self._meter = meter
        self._root = root or (lambda: identity.root)
        self._now = now
        self._proven = proven
        self._tell = tell
        self._lock = threading.Lock()
        self._using = threading.Lock()  # one at a time uses what is kept: none writes an older one
        self._client: httpx.Client | None = None
        self._trust: ReleaseTrust | None = None
        self._doubted: set[str] = set()  # asked for again and again, told once

    def __call__(self, model: str, version: str, digest: str) -> None:
        """Check that those who may do so have signed a release.

        Raises:
            TrustError: they have not; the fleet is told.
            MetadataError: what is offered as their word is damaged, stale or forged; the fleet
                is told once.
            RemoteError: the fleet cannot be asked now.
            OSError: the disk cannot be used.
        """
        root = self._root()
        if root is None:
            return
        try:
            if not self._is_brought(root, model, version, digest):
                self.ready(root).check(model, version, digest)
        except TrustError as error:
            # Before the refusal is journalled: after a crash in between it is told twice.
            if not isinstance(error, MetadataError) or digest not in self._doubted:
                self._tell(
                    SecurityRecord(
                        kind=SecurityKind.UNTRUSTED_RELEASE,
                        model=model,
                        release=digest,
                        detail=f"{model}:{version} was not installed. {error}",
                    )
                )
            self._doubted.add(digest)
            raise
        self._doubted.discard(digest)

    def check_in(self, folder: Path, model: str, version: str, digest: str) -> None:
        """Check a release by TUF's files in a folder, which somebody has brought.

        Raises:
            TrustError: those who may do so have not signed it, or the files are stale or forged.
            RemoteError: the files are not all there.
            OSError: the disk cannot be used.
        """
        root = self._root()
        if root is not None:
            self.brought(folder, root).check(model, version, digest)

    def _is_brought(self, root: bytes, model: str, version: str, digest: str) -> bool:
        """Whether the files of the last bundle that was accepted vouch for a release."""
        folder = self._identity.data / "import" / "trust"
        if not folder.is_dir():
            return False
        try:
            self.brought(folder, root).check(model, version, digest)
        except (TrustError, RemoteError):
            return False  # the network may know better
        return True

    def brought(self, folder: Path, root: bytes) -> "ReleaseTrust":
        """The TUF client of the files in a folder, for a root."""
        from cloud_sync.trust.folder_fetcher import URL, FolderFetcher
        from cloud_sync.trust.releases import ReleaseTrust

        fetcher = FolderFetcher(folder)
        kept = self._identity.data / "trust"
        return ReleaseTrust(kept, root, self._proven, fetcher, URL, lock=self._using)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                if self._meter is not None:
                    self._meter.traffic()

    def ready(self, root: bytes) -> "ReleaseTrust":
        """This device's TUF client.

        Raises:
            RemoteError: the fleet cannot be asked yet.
        """
        auth = self._auth()
        if auth is None:
            raise RemoteError("The fleet is not asked yet.", why="The agent has just come up.")
        with self._lock:
            if self._trust is None:
                # python-tuf takes 40 ms and 3 MB: only who installs needs it.
                import httpx

                from cloud_sync.address import http_client
                from cloud_sync.trust.fetcher import HttpxFetcher
                from cloud_sync.trust.releases import ReleaseTrust
                from cloud_sync.trust.together import Together

                url = self._identity.config.fleet_url
                timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
                self._client = http_client(url, auth, timeout, of="fleet", now=self._now)
                if self._meter is not None:
                    self._meter.watch_http(self._client)
                folder, files = self._identity.data / "trust", f"{url.rstrip('/')}/device/v1/trust"
                fetcher = Together(HttpxFetcher(self._client), files, folder / "metadata")
                self._trust = ReleaseTrust(
                    folder, root, self._proven, fetcher, files, lock=self._using
                )
            return self._trust
