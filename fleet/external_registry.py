"""Pushes what is published to an external OCI registry, for devices to pull it from there.

The fleet's own folder stays what is true: it says what a release is, and serves whatever a mirror
lacks. A release that the registry lost is pushed again at the next start of whoever leads. What is
removed here stays there: that registry has rules of its own.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sqlalchemy import select

from cloud_sync.address import require_private
from cloud_sync.mirrors import split_address
from cloud_sync.registry_auth import RegistryAuth
from cloud_sync.release import Blobs, Release, oci
from cloud_sync.transfer import OciClient
from edgeml.errors import EdgemlError, RemoteError, UserError
from fleet.db import tables
from fleet.registry import Registry
from fleet.services.context import Services
from fleet.services.external import External, Failed, keep
from fleet.services.releases import document

log = logging.getLogger(__name__)

EVERY_S = 5.0
_TELL_S = 600.0
_ATTEMPTS = 2  # in a row; it is tried again anyhow


@dataclass(frozen=True)
class ExternalRegistry:
    """A registry that somebody else runs, and the fleet's account there.

    `url` has the repository above the models: `https://registry.example/team-a`.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)

    def check(self) -> None:
        """Find out whether it can be spoken to.

        Raises:
            UserError: it is no address, or others could read the account's password.
        """
        url = urlsplit(self.url)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise UserError(
                f"{self.url[:200]!r} is no registry's address.",
                fix="Write --registry https://registry.example/team-a",
            )
        if url.username or url.password:
            raise UserError(
                "The registry's address names an account.",
                why="Addresses stand in logs.",
                fix="Give --registry-username and --registry-password-file.",
            )
        require_private(url.scheme, url.hostname, of="registry")


class Held:
    """A release in the fleet's registry, as what is pushed: blobs, and the evidence about it."""

    def __init__(self, registry: Registry, model: str) -> None:
        self.blobs: Blobs = registry.blobs
        self._registry = registry
        self._model = model

    def evidence_digests(self, release: str) -> Sequence[str]:
        """The digests of the evidence artifacts about a release."""
        about = self._registry.referrers(self._model, release)
        return [one.digest for one in about if one.artifact_type == oci.EVIDENCE_ARTIFACT]


@dataclass
class _Pause:
    """When a release that failed is pushed again, and how long after that."""

    until: float
    seconds: float


class Pusher:
    """Pushes each release once, the oldest first; what fails is tried again, less and less often.

    Args:
        services: the fleet.
        external: where to.
        pause_s: the first pause after a failure, and the longest.
    """

    def __init__(
        self,
        services: Services,
        external: ExternalRegistry,
        pause_s: tuple[float, float] = (EVERY_S, 300.0),
    ) -> None:
        self._services = services
        self._external = external
        self._pause_s = pause_s
        self._there: set[str] = set()
        self._failed: dict[str, Failed] = {}
        self._pauses: dict[str, _Pause] = {}
        self._client: OciClient | None = None
        self._ended = False

    def push_all(self) -> int:
        """Push the releases that are not there yet; returns how many were pushed."""
        table = tables.Release
        with self._services.database.read() as session:
            digests = session.scalars(select(table.digest).order_by(table.created_at)).all()
        pushed = 0
        for digest in digests:
            if not self._ended and digest not in self._there and self._is_due(digest):
                pushed += self._push(digest)
        if not self._ended:
            self._write_down(frozenset(digests))
        return pushed

    def cut(self) -> None:
        """Cut what is under way, from any thread, for good; it is done by whoever leads next."""
        self._ended = True
        if (client := self._client) is not None:
            client.close()

    def _is_due(self, digest: str) -> bool:
        pause = self._pauses.get(digest)
        return pause is None or time.monotonic() >= pause.until

    def _push(self, digest: str) -> bool:
        services, url = self._services, self._external.url
        with services.database.read() as session:
            row = session.get(tables.Release, digest)
            release = document(row) if row is not None else None
        if release is None:
            return False  # it was collected meanwhile
        base, prefix = split_address(url)
        auth = RegistryAuth(base, self._external.username, self._external.password)
        try:
            with closing(OciClient(base, auth, prefix=prefix, attempts=_ATTEMPTS)) as client:
                self._client = client
                if self._ended:
                    return False
                if is_new := not _has(client, release):
                    client.push(Held(services.registry, release.model), release, tagged=True)
        except EdgemlError as error:
            self._gone_wrong(release, error)
            return False
        finally:
            self._client = None
        self._there.add(digest)
        self._failed.pop(digest, None)
        self._pauses.pop(digest, None)
        if is_new:
            services.counters.add("registry.pushed")
            log.info("%s was pushed to %s", release.name, url)
        return is_new

    def _gone_wrong(self, release: Release, error: EdgemlError) -> None:
        if self._ended:
            return  # it was cut
        counters, url, digest = self._services.counters, self._external.url, release.digest
        least, most = self._pause_s
        before = self._pauses.get(digest)
        seconds = min(2 * before.seconds, most) if before else least
        self._pauses[digest] = _Pause(time.monotonic() + seconds, seconds)
        known = self._failed.get(digest)
        since = known.since if known else self._services.now()
        self._failed[digest] = Failed(name=release.name, why=str(error), since=since)
        counters.add("registry.push_failed")
        if counters.is_due(f"registry {digest} {error}", _TELL_S):
            log.warning("%s was not pushed to %s: %s", release.name, url, error)

    def _write_down(self, known: frozenset[str]) -> None:
        failed = {digest: why for digest, why in self._failed.items() if digest in known}
        there = known & self._there
        keep(self._services, External(url=self._external.url, there=there, failed=failed))


def _has(client: OciClient, release: Release) -> bool:
    """Whether a registry has all of a release: its index and evidence are pushed last."""
    try:
        client.document(release.model, release.digest, oci.MAX_DOCUMENT_BYTES)
    except RemoteError:
        return False  # it may be that it cannot be reached: the push tells
    return True
