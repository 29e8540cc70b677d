"""Who may connect to the broker: asked at every connect, so that a change needs no restart.

The fleet implements `Credentials` over its database (device id and a hash of the device's
password) plus one account of its own, `SUPERUSER`, whose password it makes anew at each start
and keeps in memory.
"""

from typing import Final, Protocol

SUPERUSER: Final = "edgeml-fleet"
"""The account of the fleet itself: it alone may use every topic. No device may have this id."""


class Credentials(Protocol):
    """Says whether a username and its password belong together, as of now."""

    def check(self, username: str, password: str) -> bool:
        """Return whether `password` is that of `username` (a device id, or `SUPERUSER`).

        Called once per connect on the broker's event loop: answer within milliseconds.
        """
        ...
