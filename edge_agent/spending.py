"""What the device spends on the network beside its downloads, and what the fleet is told of all.

The link to the fleet and the release's signatures are charged as they go; a disk that cannot
take the ledger silences it, and stops no inference.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_sync.messages import Cause, DataBudget, LedgerRecord
from cloud_sync.metering import Meter
from edge_agent.budget import BudgetSpent
from edge_agent.ledger import Ledger
from edgeml.errors import DeviceError

if TYPE_CHECKING:
    from edge_agent.account import Account

log = logging.getLogger(__name__)

LOOK_S = 5.0


class Spending:
    """See the module; `turn` is for one thread, `end` for any.

    Args:
        path: the ledger's file.
        budget: the device's budget of the moment.
        now: Unix seconds, not before the latest time that was proven.
        tell: takes what the fleet should hear.

    Attributes:
        ledger: the ledger.
        now: the time that it goes by.
        link: counts the link to the fleet.
        trust: counts what release signatures cost.
    """

    def __init__(
        self,
        path: Path,
        budget: Callable[[], DataBudget],
        now: Callable[[], float],
        tell: Callable[[LedgerRecord], None],
    ) -> None:
        self.ledger = Ledger(path, budget, now)
        self.now = now
        self.link = Meter()
        self.trust = Meter()
        self._budget = budget
        self._tell = tell
        self._accounts: tuple[Account, ...] = ()
        self._soon = False
        self._lock = threading.RLock()
        self._looked_at = -LOOK_S
        self._held = False
        self._last_error = ""

    def turn(self) -> None:
        """Charge what was spent since, and tell the fleet from time to time."""
        self._guarded(self._turn)

    def soon(self) -> None:
        """Have the fleet told at the next turn: an update has come to an end."""
        self._soon = True

    def holds_telemetry(self) -> bool:
        """Whether the month's budget is spent, so that telemetry waits in the outbox."""
        if self._budget().month_bytes is None:
            return False
        if time.monotonic() >= self._looked_at + LOOK_S:
            self._looked_at = time.monotonic()
            self._guarded(self._look)
        return self._held

    def end(self) -> None:
        """Cut what is still open and charge it; the process ends, whoever still waits for it."""
        self.link.cut()
        self.trust.cut()
        self._guarded(self._settle)

    def close(self) -> None:
        """Charge the rest, and close the file."""
        self._guarded(self._settle)
        self._guarded(self.ledger.close)

    def _settle(self) -> None:
        with self._lock:
            for account in self._accounts:
                account.ended()

    def _turn(self) -> None:
        with self._lock:
            self._charge()

    def _charge(self) -> None:
        if not self._accounts:
            self._accounts = (
                self.ledger.account(self.link, Cause.TELEMETRY),
                self.ledger.account(self.trust, Cause.METADATA),
            )
        for account in self._accounts:
            account.follow()
        if self._soon:
            self._settle()
        record = self.ledger.report(soon=self._soon)
        self._soon = False
        if record is not None:
            self._tell(record)
            self.ledger.reported(record)

    def _look(self) -> None:
        try:
            self.ledger.require(0, "", 0)
            self._held = False
        except BudgetSpent as error:
            if not self._held:
                log.warning("telemetry waits: %s", error)
            self._held = True

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
            self._last_error = ""
        except DeviceError as error:
            if str(error) != self._last_error:
                log.error("%s", error)  # noqa: TRY400 -- the sentence says it all
            self._last_error = str(error)
