"""Cuts the open connection of a device that is revoked, at a broker that others make.

Such a broker looks at a certificate when a connection begins, and never again. But it gives a
session to whoever connects last under its name, and ends the connection before: so the fleet, whose
authority it trusts, connects once in the device's name, and goes. A device that comes back is cut
again, for as long as the broker may not have read the new list of revoked certificates; then it is
not let in.
"""

import datetime as dt
import logging
import queue
import tempfile
import threading
import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from cloud_sync.mqtt_session import MqttSession, require
from cloud_sync.trust import generate, save_key
from cloud_sync.trust.identity import issue
from edgeml.errors import EdgemlError
from fleet.db import tables
from fleet.options import ExternalBroker
from fleet.services.context import Services

SOON_S = (5.0, 60.0)
AGAIN_S = 600.0
# Lists are to be copied daily; what is older than two of them is read everywhere.
FOR_S = 2 * 86400.0
MAX_AT_ONCE = 1000
_PATIENCE_S = 10.0
_LOG = logging.getLogger(__name__)


class Cutting:
    """See the module.

    Args:
        services: the fleet, which tells whose identity is good no more.
        broker: where; one with mutual TLS.
        again_s: the pause between two looks at who was revoked of late.
    """

    def __init__(
        self, services: Services, broker: ExternalBroker, *, again_s: float = AGAIN_S
    ) -> None:
        self._services = services
        self._broker = broker
        self._again_s = again_s
        self._told: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="cutting", daemon=True)
        services.replaced.tell(self._told.put)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the device that is being cut."""
        self._told.put(None)
        self._thread.join()

    def _run(self) -> None:
        looks: list[float] = []
        while True:
            looks = looks or [time.monotonic() + self._again_s]
            try:
                device = self._told.get(timeout=max(0.0, looks[0] - time.monotonic()))
                if device is None:
                    return
                found = [device]
                # One that was just about to come back is cut a little later.
                looks = [time.monotonic() + pause for pause in SOON_S]
            except queue.Empty:
                looks.pop(0)
                found = self._of_late()
            for each in found:
                self._cut(each)

    def _of_late(self) -> list[str]:
        device = tables.Device
        since = self._services.now() - FOR_S
        newest = device.revoked_at.desc()
        query = select(device.id).where(device.revoked_at > since).order_by(newest)
        try:
            with self._services.database.read() as session:
                return list(session.scalars(query.limit(MAX_AT_ONCE)))
        except SQLAlchemyError:
            _LOG.exception("who was revoked of late is not known now")
            return []

    def _cut(self, device: str) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._take_over(device, Path(folder))
        except (EdgemlError, OSError) as error:
            _LOG.warning("the connection of %s is not cut yet: %s", device, error)

    def _take_over(self, device: str, folder: Path) -> None:
        keys, key, now = self._services.keys, generate(), dt.datetime.now(dt.UTC)
        certificate = folder / "device.pem"
        certificate.write_text(issue(device, key.public_key(), keys.ca, keys.ca_key, now))
        save_key(key, folder / "device.key")
        # Without an expiry of its own the session, and what waited in it, ends with this one.
        session = MqttSession(
            self._broker.for_devices or self._broker.url,
            device,
            tls=(self._broker.ca, certificate, folder / "device.key"),
            expires_s=0,
        )
        session.start()
        try:
            require(session, _PATIENCE_S)
        finally:
            session.close()
