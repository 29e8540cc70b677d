"""The fleet itself: health, the console's link, a thaw."""

from typing import cast

from fleet.client.connection import Connection
from fleet.resources import Health, LoginLink


class SystemCalls(Connection):
    """The fleet itself: health, the console's link, a thaw."""

    def health(self) -> Health:
        """Whether the parts of the fleet work."""
        return cast("Health", self._get("/health"))

    def login_link(self) -> LoginLink:
        """A link to the console that logs in once."""
        return cast("LoginLink", self._post("/login-links", {}))

    def thaw(self, reason: str) -> Health:
        """Let rollouts move again after a restore."""
        return cast("Health", self._post("/thaw", {"reason": reason}))

    def reset_time(self, reason: str = "") -> dict[str, str]:
        """Have devices take the fleet's time also where they held a later one for proven."""
        return cast("dict[str, str]", self._post("/time/reset", {"reason": reason}))
