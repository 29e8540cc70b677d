"""Every simulated device follows TUF by itself, as the agent does: python-tuf, a folder for each.

python-tuf asks and waits, so each check has a thread while it lasts; the bytes come over the
device's own connection.
"""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from cloud_sync.release import ReleaseIndex
from cloud_sync.trust import PublicKey
from cloud_sync.trust.releases import ReleaseTrust
from cloud_sync.trust.together import Together
from edgeml.errors import EdgemlError, UserError
from fleet.simulator.http import Errand, Web

_THREADS = 8
_PATIENCE_S = 120.0


class Tuf:
    """See the module.

    Args:
        folder: what each device has seen is below it.
        root: the root that the devices were enrolled with, JSON.
        web: the HTTPS side.

    Raises:
        UserError: the fleet signs no releases, so that there is nothing to follow.
    """

    def __init__(self, folder: Path, root: str, web: Web) -> None:
        if not root:
            raise UserError(
                "The devices cannot follow TUF.",
                why="The fleet signed no releases when they were enrolled.",
                fix="Leave --tuf out, or see docs/trust.md.",
            )
        self._folder = folder
        self._root = root.encode()
        self._url = f"{web.base_url}/device/v1/trust"
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tuf")

    async def check(self, device: str, errand: Errand, release: ReleaseIndex) -> None:
        """Check that those who may have signed a release.

        Raises:
            TrustError: they have not, or what came as their word is forged or stale.
            RemoteError: the fleet cannot be asked now.
        """
        trust = self._trust(device, errand)
        await asyncio.get_running_loop().run_in_executor(
            self._threads, trust.check, release.model, release.version, release.digest
        )

    async def director_keys(self, device: str, errand: Errand) -> dict[str, PublicKey]:
        """The keys that may sign what the fleet says now, by key id.

        Raises:
            TrustError: what came as the fleet's word is forged or stale.
            RemoteError: the fleet cannot be asked now.
        """
        trust = self._trust(device, errand)
        return await asyncio.get_running_loop().run_in_executor(self._threads, trust.director_keys)

    def _trust(self, device: str, errand: Errand) -> ReleaseTrust:
        folder = self._folder / device
        fetcher = _Fetcher(errand, asyncio.get_running_loop())
        together = Together(fetcher, self._url, folder / "metadata")
        return ReleaseTrust(folder, self._root, time.time, together, self._url)

    def close(self) -> None:
        """Begin no more checks."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Fetcher(FetcherInterface):
    """Fetches on the event loop, for a thread that waits."""

    def __init__(self, errand: Errand, loop: asyncio.AbstractEventLoop) -> None:
        self._errand = errand
        self._loop = loop

    def _fetch(self, url: str) -> Iterator[bytes]:
        asked = asyncio.run_coroutine_threadsafe(self._errand.trust(url), self._loop)
        try:
            status, data = asked.result(_PATIENCE_S)
        except (EdgemlError, TimeoutError) as error:
            raise DownloadError(f"{url}: {error}") from error
        if status >= 400:  # noqa: PLR2004 -- the first of HTTP's errors
            raise DownloadHTTPError(f"The server answered {status} for {url}", status)
        yield data
