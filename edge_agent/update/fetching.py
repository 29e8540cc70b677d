"""Brings a release onto the device: its documents, and the files of one variant.

Each model has one of its own, with a connection of its own; what is here is not fetched again.
What it costs is charged to the ledger, and nothing is asked for that the disk or the data budget
has no room for. A delta that fails is no leave to fetch the whole: the budget is asked again.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from cloud_sync.messages import Cause, DesiredModel
from cloud_sync.metering import Traffic
from cloud_sync.release import (
    Blobs,
    Release,
    ReleaseIndex,
    Variant,
    read_index,
    read_release,
    read_variant,
)
from cloud_sync.release.reading import ReadBlob
from cloud_sync.watch import Watch
from edge_agent.budget import BudgetSpent
from edge_agent.failpoints import reach
from edge_agent.shortage import Shortage
from edge_agent.store import ReleaseStore
from edgeml.errors import DeviceError, ReleaseError, RemoteError

if TYPE_CHECKING:
    from edge_agent.ledger import Ledger
    from edge_agent.update.deltas import Deltas, Offer

# How long an answer about deltas holds: an update that waits may have one made meanwhile.
ASK_AGAIN_S = 600.0
# What a release's documents take, before it is known how many there are.
_DOCUMENTS, _DOCUMENTS_BYTES = 4, 256 << 10

log = logging.getLogger(__name__)


class Registry(Protocol):
    """What is asked for releases: `edge_agent.registries.Registries`, or less."""

    def document(self, name: str, digest: str, max_bytes: int) -> bytes:
        """A small blob, verified."""

    def fetch_blob(
        self, name: str, digest: str, size: int, blobs: Blobs, watch: Watch | None = None
    ) -> object:
        """Fetch a blob into a store."""

    def traffic(self) -> Traffic:
        """What it cost until now."""

    @property
    def buffered(self) -> int:
        """What may have come that was not counted when the process is killed."""

    def cut(self) -> None:
        """Cut the connections, from any thread."""

    def close(self) -> None:
        """Close the connections."""


_Read = TypeVar("_Read")
# Makes the registry's client of how it sleeps.
Connect = Callable[[Callable[[float], None]], Registry]


class Interrupted(Exception):  # noqa: N818 -- no error: something else is due first
    """The work is left as it is; where it is still due, the next turn goes on with it."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing of a variant, with sizes, and the deltas that lead to some of it."""

    missing: dict[str, int]
    offers: "dict[str, Offer]"

    @property
    def over_the_link(self) -> int:
        """The bytes that are to come, of deltas where there are any."""
        return sum(
            self.offers[digest].size if digest in self.offers else size
            for digest, size in self.missing.items()
        )

    @property
    def on_disk(self) -> int:
        """The bytes that are to be written."""
        return sum(self.missing.values()) + sum(offer.size for offer in self.offers.values())


class Fetcher:
    """See the module.

    Args:
        model: whose releases.
        store: where they go.
        connect: makes the connection to the registry.
        wake: when it is set, what takes long raises `Interrupted`.
        may_go_on: asked while bytes come; where it says no, that is raised, too.
        ledger: what everything is charged to; without it nothing is counted.
        deltas: what leads from the blobs that are here to others.
    """

    def __init__(
        self,
        model: str,
        store: ReleaseStore,
        connect: Connect,
        wake: threading.Event,
        *,
        may_go_on: Callable[[], bool] = lambda: True,
        ledger: "Ledger | None" = None,
        deltas: "Deltas | None" = None,
    ) -> None:
        self._model = model
        self._store = store
        self._connect = connect
        self._wake = wake
        self._may_go_on = may_go_on
        self._ledger = ledger
        self._deltas = deltas
        self._connected: Registry | None = None
        self._spoilt: set[str] = set()
        self._planned: tuple[str, Plan] | None = None
        self._planned_at = 0.0

    def cut(self) -> None:
        """Cut the connections, from any thread: what comes is charged, and the work interrupted."""
        if (connected := self._connected) is not None:
            connected.cut()

    def close(self) -> None:
        """Close the connections."""
        if self._connected is not None:
            self._connected.close()

    def index(self, desired: DesiredModel) -> ReleaseIndex:
        """The release's index; see `_documents` for what is raised."""
        return self._documents(desired, lambda read: read_index(read, desired.release))

    def variant(self, desired: DesiredModel) -> Variant:
        """The variant, of its own documents alone; see `_documents` for what is raised."""
        return self._documents(
            desired, lambda read: read_variant(read, desired.release, desired.variant)
        )

    def release(self, desired: DesiredModel) -> Release:
        """The release with all its variants; see `_documents` for what is raised."""
        return self._documents(desired, lambda read: read_release(read, desired.release))

    def _documents(self, desired: DesiredModel, what: Callable[[ReadBlob], _Read]) -> _Read:
        """Read documents from the registry, and keep them.

        Raises:
            RemoteError: the registry cannot be asked now.
            ReleaseError: what it has is not the release.
            DeviceError: the disk has no room for them, or is read-only.
            BudgetSpent: nothing may be fetched now.
        """
        account = self._account(desired, Cause.METADATA)
        asked = 0

        def read(digest: str, limit: int) -> bytes:
            nonlocal asked
            data = self._store.document(digest, limit)
            if data is None:
                registry = self._registry
                if not asked:
                    self._store.require_room(_DOCUMENTS_BYTES, _DOCUMENTS)
                    account.attempt(1, 0)
                asked += 1
                data = registry.document(self._model, digest, limit)
                account.arrived(len(data))
                self._store.blobs.put(data)
                reach("document-stored")
            return data

        try:
            return what(read)
        finally:
            account.ended()

    def missing(self, variant: Variant) -> dict[str, int]:
        """The blobs, with their sizes, that are not here or not whole."""
        return {d: n for d, n in self._store.needed(variant).items() if not self._is_here(d)}

    def preflight(self, desired: DesiredModel, variant: Variant, room: int = 0) -> None:
        """Check, before the first byte of a file, that disk and budget have room for the variant.

        Args:
            desired: for which rollout.
            variant: what is to be fetched.
            room: bytes that are to be free beside its files.

        Raises:
            DeviceError: the disk has no room, or is read-only.
            BudgetSpent: it does not fit into the data budget.
        """
        plan = self._plan(variant)
        here = sum(self._part_size(digest) for digest in plan.missing)
        self._store.require_room(plan.on_disk + room - here, len(plan.missing) + len(plan.offers))
        if self._ledger is not None and plan.missing:
            due = max(0, plan.over_the_link - here)
            self._ledger.require(due, desired.rollout, desired.data_budget_bytes)

    def files(self, desired: DesiredModel, variant: Variant) -> None:
        """Fetch what is missing of a variant.

        Raises:
            DeviceError: the disk has no room for it.
            RemoteError: the registry cannot be asked now.
            ReleaseError: a blob is not what its digest says.
            BudgetSpent: it does not fit into the data budget.
        """
        self.preflight(desired, variant)
        plan = self._plan(variant)
        for digest, size in plan.missing.items():
            # Another model's release may hold the same file.
            with self._store.alone_with(digest, self._pause):
                offer = plan.offers.get(digest)
                if offer is None or not self._by_delta(desired, offer, digest, size):
                    self._fetch(desired, Cause.FULL, digest, size)
            reach("downloaded-one")
        self._planned = None

    def _plan(self, variant: Variant) -> Plan:
        """What is to be done; the fleet is asked for the deltas to what is missing.

        Raises:
            RemoteError: nobody can be asked yet, which is no leave to fetch the whole.
        """
        missing = self.missing(variant)
        if missing:
            self._connect_once()
        if time.monotonic() > self._planned_at + ASK_AGAIN_S:
            self._planned, self._planned_at = None, time.monotonic()
        known = self._planned[1] if self._planned and self._planned[0] == variant.digest else None
        offers: dict[str, Offer] = {}
        for digest, size in missing.items():
            if known is not None and digest in known.missing:
                found = known.offers.get(digest)
            elif self._deltas is not None and not self._part_size(digest):
                found = self._deltas.offer(digest, size)
            else:
                found = None
            if found is not None:
                offers[digest] = found
        plan = Plan(missing=missing, offers=offers)
        self._planned = (variant.digest, plan)
        return plan

    def _by_delta(self, desired: DesiredModel, offer: "Offer", digest: str, size: int) -> bool:
        """Fetch and apply a delta; where it did not work out the whole has to fit the budget."""
        assert self._deltas is not None
        try:
            self._fetch(desired, Cause.DELTA, offer.digest, offer.size)
            self._deltas.apply(offer, digest, size)
        except RemoteError:
            self._planned = None  # it may be offered no more
            raise
        except ReleaseError as error:
            log.warning("%s: a delta failed: %s", self._model, error)
            self._forget(digest)
            if self._ledger is not None:
                self._ledger.failed_delta(desired.rollout, getattr(error, "cause", "delta-damaged"))
                self._ledger.require(size, desired.rollout, desired.data_budget_bytes)
            return False
        return True

    def _fetch(self, desired: DesiredModel, cause: Cause, digest: str, size: int) -> None:
        if digest in self._spoilt:
            cause = Cause.RETRY
        registry = self._registry
        watch = _Watching(self._account(desired, cause), self._pause)
        try:
            registry.fetch_blob(self._model, digest, size, self._store.blobs, watch)
        except ReleaseError:
            self._spoilt.add(digest)
            raise
        except (BudgetSpent, Shortage):
            raise
        except DeviceError as error:
            # The disk: what it lacks it may have again.
            raise Shortage(error.what, why=error.why, fix=error.fix) from error

    def _forget(self, digest: str) -> None:
        if self._planned is not None:
            variant, plan = self._planned
            offers = {d: offer for d, offer in plan.offers.items() if d != digest}
            self._planned = (variant, msgspec.structs.replace(plan, offers=offers))

    def _account(self, desired: DesiredModel, cause: Cause) -> Watch:
        if self._ledger is None:
            return Watch()
        return self._ledger.account(
            _Late(lambda: self._connected), cause, desired.rollout, desired.data_budget_bytes
        )

    def _part_size(self, digest: str) -> int:
        part = self._store.blobs.part(digest)
        return part.stat().st_size if part.exists() else 0

    @property
    def _registry(self) -> Registry:
        return self._connect_once()

    def _connect_once(self) -> Registry:
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

    def _pause(self, seconds: float) -> None:
        if self._wake.wait(seconds) or not self._may_go_on():
            raise Interrupted


class _Watching(Watch):
    """Charges what comes, and stops where something else is due."""

    def __init__(self, account: Watch, pause: Callable[[float], None]) -> None:
        self._account = account
        self._pause = pause

    def attempt(self, number: int, missing: int) -> None:
        self._account.attempt(number, missing)

    def arrived(self, count: int) -> None:
        self._account.arrived(count)
        reach("download-bytes")
        self._pause(0)

    def ended(self) -> None:
        self._account.ended()


class _Late:
    """The bytes of connections that may not have been made yet."""

    def __init__(self, registry: Callable[[], Registry | None]) -> None:
        self._registry = registry

    def traffic(self) -> Traffic:
        registry = self._registry()
        return registry.traffic() if registry is not None else Traffic()

    @property
    def buffered(self) -> int:
        registry = self._registry()
        return registry.buffered if registry is not None else 0
