"""Charges what a meter counts to one rollout and cause, and keeps a lease ahead of what comes."""

import time
from typing import TYPE_CHECKING, Protocol

from cloud_sync.data_budget import OVERHEAD_BYTES, cost
from cloud_sync.messages import Cause
from cloud_sync.metering import Traffic
from cloud_sync.release.oci import MAX_DOCUMENT_BYTES
from cloud_sync.watch import Watch

if TYPE_CHECKING:
    from edge_agent.ledger import Ledger

LEASE_BYTES = (256 << 10, 64 << 20)
SHARE = 64  # a first lease is such a part of the blob, where that is more
QUICK_S, SLOW_S = 0.5, 2.0


class Metered(Protocol):
    """What counts the bytes of connections: `cloud_sync.metering.Meter`, or several of them."""

    def traffic(self) -> Traffic:
        """What they cost until now."""

    @property
    def buffered(self) -> int:
        """What may have come that was not counted when the process is killed."""


class Account(Watch):
    """Charges what a meter counts to one rollout and cause; use it from one thread."""

    def __init__(
        self, ledger: "Ledger", meter: Metered, cause: Cause, rollout: str, rollout_bytes: int
    ) -> None:
        self._ledger = ledger
        self._meter = meter
        self._cause = cause
        self._about = (rollout, rollout_bytes)
        self._base = meter.traffic()
        self._number = self._kept = 0
        self._lease = self._leased = 0
        self._unseen = self._ahead = 0
        self._expected: int | None = None
        self._step, self._leased_at = LEASE_BYTES[0], 0.0

    def attempt(self, number: int, missing: int) -> None:
        """Charge the attempt before, and begin another one where the budget allows it."""
        self._settle(0)
        self._ledger.require(missing, *self._about)
        # How large a document is nobody knows before it has come.
        self._number, self._expected = number, cost(missing) if missing else None
        first = min(missing // SHARE, LEASE_BYTES[1]) if missing else MAX_DOCUMENT_BYTES
        self._step = max(self._step, first)
        self._renew()
        self._look()

    def arrived(self, count: int) -> None:
        """Keep the lease ahead of what comes."""
        self._kept += count
        self._unseen += count
        # Headers and what is buffered are far less than as much again.
        if 2 * self._unseen >= self._ahead:
            self.follow()

    def follow(self) -> None:
        """Charge what was spent, where the lease does not cover what may come any more."""
        if self._look() <= 0:
            self._renew()
            if self._number:
                self._ledger.require(0, *self._about, lease=self._leased)
            self._look()

    def ended(self) -> None:
        """Charge all of it."""
        self._settle(0)

    def _look(self) -> int:
        """How far the lease is ahead of what was spent and may have come by now."""
        spent = (self._meter.traffic() - self._base).total
        self._unseen, self._ahead = 0, self._leased - spent - self._meter.buffered
        return self._ahead

    def _renew(self) -> None:
        low, high = LEASE_BYTES
        now = time.monotonic()
        took, self._leased_at = now - self._leased_at, now
        if took < QUICK_S:
            self._step = min(4 * self._step, high)
        elif took > SLOW_S:
            self._step = low
        self._settle(self._step + self._meter.buffered, over=False)

    def _settle(self, ahead: int, *, over: bool = True) -> None:
        """Charge what was spent, and lease so much ahead; `over`: the attempt has ended.

        What a later attempt brought of the blob is no waste; the rest is, as soon as it is over.
        """
        spent = self._meter.traffic() - self._base
        charges = {self._cause: spent}
        if self._number > 1:
            useful = Traffic(0, min(self._kept, spent.received))
            charges = {self._cause: useful, Cause.RETRY: spent - useful if over else Traffic()}
        charged = sum(charges.values(), Traffic())
        open_yet = (spent - charged).total
        if self._expected is not None:
            self._expected = max(0, self._expected - charged.total)
            ahead = min(ahead, self._expected + OVERHEAD_BYTES)
        again = ahead + open_yet if ahead else 0
        if not (charged.total or self._lease or again):
            return
        paid = {cause: traffic for cause, traffic in charges.items() if traffic.total}
        rollout, _ = self._about
        self._lease = self._ledger.settle(self._lease, rollout, paid, (self._cause, again))
        self._base += charged
        self._kept, self._leased = 0, again
