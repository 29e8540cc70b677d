"""Whether this device trusts a release: asked once, before a byte of its model is fetched.

A refusal goes to the fleet as a security event, too: an honest fleet wants no release that
nobody has signed. A device that was enrolled without a root checks nothing.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloud_sync.messages import SecurityKind, SecurityRecord
from edgeml.errors import RemoteError, TrustError

if TYPE_CHECKING:
    import httpx

    from cloud_sync.trust.releases import ReleaseTrust
    from edge_agent.identity import Identity

CONNECT_S = 5.0
READ_S = 15.0


class ReleaseCheck:
    """See the module. Safe to use from several threads.

    Args:
        identity: who this device is, and the root that it was enrolled with.
        auth: the device's credentials at the fleet; None while it is not asked yet.
        proven: the latest time that the fleet has proven, in Unix seconds.
        tell: takes what the fleet should hear of a refusal.
    """

    def __init__(
        self,
        identity: "Identity",
        auth: "Callable[[], httpx.Auth | None]",
        proven: Callable[[], float],
        tell: Callable[[SecurityRecord], None],
    ) -> None:
        self._identity = identity
        self._auth = auth
        self._proven = proven
        self._tell = tell
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._trust: ReleaseTrust | None = None

    def __call__(self, model: str, version: str, digest: str) -> None:
        """Check that those who may do so have signed a release.

        Raises:
            TrustError: they have not; the fleet is told.
            RemoteError: the fleet cannot be asked now.
            OSError: the disk cannot be used.
        """
        root = self._identity.root
        if root is None:
            return
        try:
            self._ready(root).check(model, version, digest)
        except TrustError as error:
            # Before the refusal is journalled: after a crash in between it is told twice.
            self._tell(
                SecurityRecord(
                    kind=SecurityKind.UNTRUSTED_RELEASE,
                    model=model,
                    release=digest,
                    detail=f"{model}:{version} was not installed. {error}",
                )
            )
            raise

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _ready(self, root: bytes) -> "ReleaseTrust":
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

                url = self._identity.config.fleet_url
                timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
                self._client = http_client(url, auth, timeout, of="fleet")
                self._trust = ReleaseTrust(
                    self._identity.data / "trust",
                    root,
                    self._proven,
                    HttpxFetcher(self._client),
                    f"{url.rstrip('/')}/device/v1/trust",
                )
            return self._trust
