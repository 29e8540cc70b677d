"""The check that devices make, made by the fleet on what it publishes: no rollout begins without.

It is python-tuf's client, as on a device, over the repository's own files.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Root
from tuf.ngclient.fetcher import FetcherInterface

from cloud_sync.trust.releases import ReleaseTrust
from fleet.trust.repository import Repository
from fleet.trust.store import Store

_URL = "files://trust"
_NOT_FOUND = 404


class _Files(FetcherInterface):
    def __init__(self, store: Store) -> None:
        self._store = store

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._store.file(url.removeprefix(f"{_URL}/"))
        if data is None:
            raise DownloadHTTPError(f"There is no {url}", _NOT_FOUND)
        return iter((data,))


def check(repository: Repository, model: str, version: str, digest: str) -> None:
    """Check that a device which is enrolled now would take a release.

    Raises:
        TrustError: it would not.
    """
    root = repository.store.published(Root.type)
    assert root is not None
    with tempfile.TemporaryDirectory() as folder:
        trust = ReleaseTrust(Path(folder), root, repository.now, _Files(repository.store), _URL)
        trust.check(model, version, digest)
