"""Opens the local API in an agent that goes on without it.

An address that is busy or not there yet, as after a start from power where the network comes
late, is no reason to leave a device's frames alone: it is said, and tried again.
"""

import logging
import time

from edge_agent.api.server import LocalApi
from edgeml.errors import DeviceError, UserError

log = logging.getLogger(__name__)

RETRY_S = 30.0


class Opening:
    """Opens an API whose options were checked; `turn` now and then until it is open."""

    def __init__(self, api: LocalApi, retry_s: float = RETRY_S) -> None:
        self._api = api
        self._retry_s = retry_s
        self._due: float | None = 0.0
        self._said = ""

    def turn(self) -> None:
        """Try once more where it is due; what stands in the way is logged once.

        Raises:
            TrustError: the certificate or its key cannot be used.
        """
        if self._due is None or time.monotonic() < self._due:
            return
        try:
            self._api.start()
        except (UserError, DeviceError) as error:
            self._due = time.monotonic() + self._retry_s
            if str(error) != self._said:
                self._said = str(error)
                log.warning(
                    "%s The agent runs without it and tries again every %g s.",
                    error,
                    self._retry_s,
                )
        else:
            self._due = None
