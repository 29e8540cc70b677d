"""Devices' keys, remembered: whether one is still good is judged where a batch is stored."""

import threading
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select

from cloud_sync.trust import PublicKey
from cloud_sync.trust.keys import load_public
from fleet.db import tables
from fleet.services.context import Services

MOST = 100_000


@dataclass(frozen=True, slots=True)
class Key:
    """A device's key, its id and its bytes."""

    id: str
    key: PublicKey
    raw: bytes


class Keys:
    """The keys of the devices that have spoken, looked up many at a time."""

    def __init__(self, services: Services) -> None:
        self._database = services.database
        self._known: dict[str, Key] = {}
        self._lock = threading.Lock()

    def of(self, devices: Collection[str]) -> dict[str, Key]:
        """The keys of those devices that are enrolled and not revoked."""
        found = {device: key for device in devices if (key := self._known.get(device))}
        missing = set(devices) - set(found)
        if not missing:
            return found
        row = tables.Device
        query = select(row.id, row.key_id, row.public_key).where(
            row.id.in_(sorted(missing)), row.revoked_at.is_(None)
        )
        with self._database.read() as session:
            rows = session.execute(query).all()
        new = {device: _key(key_id, pem) for device, key_id, pem in rows}
        with self._lock:
            if len(self._known) + len(new) > MOST:
                self._known.clear()
            self._known |= new
        return found | new

    def forget(self, device: str) -> None:
        """Look a device's key up again the next time."""
        with self._lock:
            self._known.pop(device, None)


def _key(key_id: str, pem: str) -> Key:
    key = load_public(pem)
    return Key(key_id, key, key.public_bytes_raw())
