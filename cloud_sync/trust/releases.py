"""Whether a release may be installed: the device's half of TUF.

A release is a TUF target: its path is `model/version`, its sha256 the release's digest. What
decides is python-tuf's `Updater`; this module gives it a folder, a connection and a clock, and
turns what it finds into edgeml's errors. It is asked once, before a release is installed. What
is installed runs for ever without it.

    trust = ReleaseTrust(folder, root, clock, fetcher, f"{fleet_url}/device/v1/trust")
    trust.check("digits", "1.2.0", "sha256:...")

The clock is the time that the fleet has proven (the floor), not the device's own: a wrong wall
clock neither refuses what is fresh nor takes what is stale.
"""

import datetime as dt
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TargetFile
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from cloud_sync.metadata_error import MetadataError
from cloud_sync.trust.keys import PublicKey, key_id, load_public, split_pems
from edgeml.errors import RemoteError, TrustError

# Below a name that no model can have.
DIRECTOR = "_fleet/director.pem"
AUTHORITIES = "_fleet/ca.pem"

_T = TypeVar("_T")
_WHY: tuple[tuple[type[Exception], str, str], ...] = (
    (
        ExpiredMetadataError,
        "It has expired: somebody may hold back what is newer.",
        "The fleet renews it while it is up; for what is signed offline: edgeml trust show",
    ),
    (
        BadVersionNumberError,
        "It is not the version that must follow: somebody may offer what was replaced.",
        "If the fleet was restored from a backup, see docs/trust.md.",
    ),
    (
        UnsignedMetadataError,
        "Too few of the keys that must sign it did.",
        "See which keys are trusted and who signed: edgeml trust show",
    ),
    (
        LengthOrHashMismatchError,
        "It is not what the signed list says.",
        "It was damaged or swapped on the way.",
    ),
    (
        DownloadLengthMismatchError,
        "More bytes came than it may have.",
        "Look at who answers for the fleet: a proxy, a mirror.",
    ),
)


class ReleaseTrust:
    """What this device trusts; safe to use from several threads.

    Args:
        folder: where metadata is kept; made when it is not there.
        root: the root that the device was enrolled with, JSON. Newer ones follow from it.
        clock: the time that the fleet has proven, in Unix seconds; None where there is none.
        fetcher: how files are fetched.
        url: where the fleet or a mirror serves `metadata/` and `targets/`.
        lock: shared by all who use the folder.
    """

    def __init__(
        self,
        folder: Path,
        root: bytes,
        clock: Callable[[], float | None],
        fetcher: FetcherInterface,
        url: str,
        *,
        lock: "threading.Lock | None" = None,
    ) -> None:
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"
        self._root = root
        self._clock = clock
        self._fetcher = fetcher
        self._url = url.rstrip("/")
        self._lock = lock or threading.Lock()

    def check(self, model: str, version: str, digest: str) -> None:
        """Check that those who may do so have signed a release.

        Raises:
            TrustError: they have not.
            MetadataError: what is offered as their word is forged, stale, older than what this
                device has seen, or not whole.
            RemoteError: the fleet cannot be asked now, or no time is proven yet; ask again.
        """
        path = f"{model}/{version}"
        target = self._fresh(lambda updater: updater.get_targetinfo(path))
        if target is None:
            raise TrustError(
                f"The release {model}:{version} was refused.",
                why="Nobody who may sign it has.",
                fix=f"Sign it: edgeml releases push, or edgeml trust sign. See {model} there.",
            )
        if f"sha256:{target.hashes.get('sha256')}" != digest:
            raise TrustError(
                f"The release {model}:{version} was refused.",
                why=f"Signed is sha256:{target.hashes.get('sha256')}, wanted is {digest[:80]}.",
                fix="A release is immutable; push the changed one under another version.",
            )

    def director_keys(self) -> dict[str, PublicKey]:
        """The keys that may sign what the fleet says, by key id.

        Raises:
            TrustError: they are not signed, or what came is not what was signed.
            RemoteError: the fleet cannot be asked now.
        """
        keys = [load_public(pem) for pem in split_pems(self._content(DIRECTOR))]
        return {key_id(key): key for key in keys}

    def authorities(self) -> str:
        """The certificates (PEM) of the authorities that issue for the fleet's devices.

        Raises:
            TrustError: they are not signed, or what came is not what was signed.
            RemoteError: the fleet cannot be asked now.
        """
        return self._content(AUTHORITIES)

    def _content(self, path: str) -> str:
        def fetch(updater: Updater) -> str | None:
            target = updater.get_targetinfo(path)
            return None if target is None else self._download(updater, target)

        text = self._fresh(fetch)
        if text is None:
            raise TrustError(f"{path} was refused.", why="Nobody who may sign it has.")
        return text

    def _download(self, updater: Updater, target: TargetFile) -> str:
        found = updater.find_cached_target(target) or updater.download_target(target)
        return Path(found).read_text()

    def _fresh(self, ask: Callable[[Updater], _T]) -> _T:
        """Ask an updater that has refreshed what this device knows."""
        now = self._clock()
        if now is None:
            raise RemoteError(
                "What the fleet has signed cannot be judged yet.",
                why="The fleet has proven no time to this device.",
            )
        with self._lock:
            try:
                return self._ask(ask, now)
            except RepositoryError:
                # The fleet may have put new keys in force between two of our requests; a
                # forgery is as forged the second time.
                pass
            try:
                return self._ask(ask, now)
            except RepositoryError as error:
                raise _refusal(error) from error

    def _ask(self, ask: Callable[[Updater], _T], now: float) -> _T:
        self._metadata.mkdir(parents=True, exist_ok=True)
        self._targets.mkdir(exist_ok=True)
        updater = Updater(
            metadata_dir=str(self._metadata),
            metadata_base_url=f"{self._url}/metadata/",
            target_dir=str(self._targets),
            target_base_url=f"{self._url}/targets/",
            fetcher=self._fetcher,
            bootstrap=self._root,
        )
        # The one place where python-tuf keeps the time that it judges by; it has no argument.
        updater._trusted_set.reference_time = dt.datetime.fromtimestamp(now, dt.UTC)  # noqa: SLF001
        try:
            updater.refresh()
            found = ask(updater)
        except DownloadLengthMismatchError as error:
            raise _refusal(error) from error
        except DownloadError as error:
            raise RemoteError(
                "What the fleet has signed cannot be fetched.",
                why=f"{str(error).rstrip('.')}.",
                fix="It is asked for again.",
            ) from error
        self._sync()
        return found

    def _sync(self) -> None:
        """Keep what was learned over a loss of power: it is what a rollback is noticed by."""
        for path in (*self._metadata.glob("*.json"), self._metadata):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _refusal(error: Exception) -> MetadataError:
    for kind, why, fix in _WHY:
        if isinstance(error, kind):
            return MetadataError(
                "What the fleet is said to have signed was refused.",
                why=f"{why} ({error})",
                fix=fix,
            )
    return MetadataError("What the fleet is said to have signed was refused.", why=f"{error}.")
