"""Several registries that may have a release: mirrors and site caches, then the fleet's own.

What is asked for is known by its digest, so any of them will do, and the first that has it
serves it. One that cannot be reached or lacks it is left for the next, and asked again later;
one that gives other bytes is left for good and named. A download that one has begun another
goes on with.

    registry = Mirrors([OciClient("https://cache.site"), OciClient("https://fleet:8081", auth)])
    registry.fetch_blob("digits", digest, size, blobs)
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import httpx

from cloud_sync.metering import Traffic
from cloud_sync.release import Blobs, oci
from cloud_sync.transfer import OciClient
from cloud_sync.watch import Watch
from edgeml.errors import EdgemlError, ReleaseError, RemoteError, UserError

log = logging.getLogger(__name__)

AGAIN_S = 300.0
# A mirror that fails costs little time: the next one is there.
MIRROR_ATTEMPTS = 2

OnLie = Callable[[str, str], None]
T = TypeVar("T")


class Mirrors:
    """See the module.

    Args:
        registries: in the order in which they are asked.
        on_lie: told the name of one that gave something else, and what that was.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        registries: Sequence[OciClient],
        on_lie: OnLie | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registries = tuple(registries)
        self._on_lie = on_lie
        self._monotonic = monotonic
        self._left: dict[OciClient, float] = {}

    def traffic(self) -> Traffic:
        """What all of them cost until now."""
        return sum((r.meter.traffic() for r in self._registries), Traffic())

    @property
    def buffered(self) -> int:
        """How much may have come that was not counted yet when the process is killed."""
        return sum(registry.meter.buffered for registry in self._registries)

    def cut(self) -> None:
        """Cut the connections: whoever waits for one waits no more. From any thread."""
        for registry in self._registries:
            registry.meter.cut()

    def close(self) -> None:
        """Close the connections."""
        for registry in self._registries:
            registry.close()

    def document(self, name: str, digest: str, max_bytes: int = oci.MAX_DOCUMENT_BYTES) -> bytes:
        """A manifest, index or other small blob, verified.

        Raises:
            RemoteError: none can be reached or has it; the sentence names each.
            ReleaseError: the last one has something else.
        """
        return self._first(lambda registry: registry.document(name, digest, max_bytes))

    def fetch_blob(
        self, name: str, digest: str, size: int, blobs: Blobs, watch: Watch | None = None
    ) -> int:
        """Fetch a blob into a store, unless it is there; returns the bytes that were received.

        Raises:
            DeviceError: the disk has no room for it.
            RemoteError: none can be reached or has it; the sentence names each.
            ReleaseError: the last one has something else.
        """
        return self._first(lambda registry: registry.fetch_blob(name, digest, size, blobs, watch))

    def _first(self, ask: Callable[[OciClient], T]) -> T:
        failed: list[tuple[str, EdgemlError]] = []
        for registry in self._in_turn():
            try:
                return ask(registry)
            except ReleaseError as error:
                failed.append((registry.name, error))
                self._left[registry] = float("inf")
                log.warning("%s is asked no more: %s", registry.name, error)
                if self._on_lie is not None:
                    self._on_lie(registry.name, str(error))
            except RemoteError as error:
                failed.append((registry.name, error))
                self._left[registry] = self._monotonic() + AGAIN_S
        raise _all_failed(failed)

    def _in_turn(self) -> list[OciClient]:
        """Those that did well, in their order, and the last one always: it is the fleet's."""
        now = self._monotonic()
        *mirrors, last = self._registries
        return [*(m for m in mirrors if self._left.get(m, 0.0) <= now), last]


def _all_failed(failed: list[tuple[str, EdgemlError]]) -> EdgemlError:
    *_, (_, last) = failed
    if len(failed) == 1 or isinstance(last, ReleaseError):
        return last
    said = "; ".join(f"{name}: {error.what} {error.why}" for name, error in failed)
    return RemoteError("No registry has it.", why=said, fix=last.fix)


def split_address(address: str) -> tuple[str, str]:
    """The base and the repository prefix of a registry's address.

    >>> split_address("https://registry.example/team-a")
    ('https://registry.example', 'team-a')

    Raises:
        UserError: it is no address.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise UserError(f"{address[:200]!r} is no registry's address.", why=f"{error}.") from None
    return str(url.copy_with(raw_path=b"/")).rstrip("/"), url.path.strip("/")
