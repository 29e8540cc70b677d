"""Tells whoever waits (controller, console, event streams) that something changed.

Threads announce and wait; what changed is read from the database, so that nothing is lost when
an announcement is. On PostgreSQL `fleet.notices` carries announcements to the fleet's other
processes.
"""

import threading


class Changes:
    """A counter that rises with every change.

    >>> changes = Changes()
    >>> before = changes.count
    >>> changes.announce()
    >>> changes.wait(before, timeout_s=1.0) > before
    True
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0
        self._own = 0

    @property
    def count(self) -> int:
        """How many changes were announced."""
        return self._count

    def announce(self) -> None:
        """Say that something changed; after the commit, for others look at once."""
        with self._condition:
            self._own += 1
            self._count += 1
            self._condition.notify_all()

    def hear(self) -> None:
        """Pass on what another process announced."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until the count is above `seen`, or for the timeout; returns the count."""
        with self._condition:
            self._condition.wait_for(lambda: self._count > seen, timeout_s)
            return self._count

    def wait_own(self, seen: int, timeout_s: float) -> int:
        """The same for what this process announced alone."""
        with self._condition:
            self._condition.wait_for(lambda: self._own > seen, timeout_s)
            return self._own
