"""Deltas on the device: the smallest one that leads from a blob which is here to one that is not.

A delta only ever saves bytes. Whether its failure may cost the whole blob is decided by whoever
keeps the data budget; here it is said, by `DeltaFailed.cause`.
"""

import errno
import logging
from collections.abc import Callable

import msgspec

from cloud_sync.delta import (
    MAX_MEMORY_BYTES,
    DeltaFailed,
    DeltaOffer,
    DeltaOffers,
    apply,
    is_possible,
    is_worth,
)
from cloud_sync.release import is_digest
from edge_agent.failpoints import reach
from edge_agent.memory import require_memory
from edge_agent.store import ReleaseStore
from edgeml.errors import DeviceError, EdgemlError

log = logging.getLogger(__name__)

Offer = DeltaOffer


class Deltas:
    """See the module.

    Args:
        store: where the blobs are.
        ask: the body of the fleet's answer for a blob's digest; None where it has no such route.
    """

    def __init__(self, store: ReleaseStore, ask: Callable[[str], bytes | None]) -> None:
        self._store = store
        self._ask = ask
        self._failed: set[str] = set()

    def offer(self, digest: str, size: int) -> Offer | None:
        """The smallest delta that leads to a blob from one that is here; None where none does.

        Whether there is one costs a request of some hundred bytes and no more: a fleet that
        cannot be asked offers none. One that has failed is not taken again.
        """
        if not is_possible(size):
            return None
        try:
            answer = self._ask(digest)
            found = msgspec.json.decode(answer, type=DeltaOffers).offers if answer else ()
        except (EdgemlError, msgspec.DecodeError, ValueError, RecursionError) as error:
            log.info("no delta to %s: %s", digest, error)
            return None
        usable = [offer for offer in found if self._is_usable(offer, size)]
        return min(usable, key=lambda offer: offer.size, default=None)

    def apply(self, offer: Offer, digest: str, size: int) -> None:
        """Make the blob of the delta, which is here, and its base; the delta is removed after.

        Raises:
            DeltaFailed: it did not give the blob.
        """
        blobs = self._store.blobs
        try:
            require_memory(MAX_MEMORY_BYTES, "unpacking a delta")
            reach("delta-applying")
            file = blobs.path(offer.digest)
            apply(blobs, offer.base, file, digest, size, on_piece=lambda: reach("delta-piece"))
            reach("delta-applied")
        except DeltaFailed:
            self._failed.add(offer.digest)
            raise
        except DeviceError as error:
            raise DeltaFailed("no-memory", str(error)) from error
        except OSError as error:
            cause = "no-room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "disk"
            raise DeltaFailed(cause, f"{error}.") from error
        finally:
            blobs.remove(offer.digest)

    def _is_usable(self, offer: Offer, size: int) -> bool:
        return (
            is_digest(offer.base)
            and is_digest(offer.digest)
            and offer.digest not in self._failed
            and is_worth(offer.size, size)
            and self._store.blobs.has(offer.base)
        )
