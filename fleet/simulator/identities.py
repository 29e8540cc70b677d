"""What is kept of all devices between two runs: who they are, and what they run. One SQLite file.

    identities = Identities(Path("sim"))
    identities.get("sim-00001")      # None before it is enrolled
    identities.keep(identity)

The file holds private keys: it is its owner's alone. A run that is cut off goes on with the
devices that were enrolled; what a device ran is written when the simulator ends.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud_sync.messages import Enrolled
from cloud_sync.trust import PrivateKey
from cloud_sync.update_machine import ModelState
from edgeml.errors import UserError

_FILE = "identities.db"
_MODE = 0o600


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a device remembers over a restart.

    The last signed state, and of each model what its update has come to.
    """

    epoch: int = 0
    counter: int = 0
    accepted: str = ""
    models: dict[str, ModelState] = {}


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolled device: its private key (raw), and what else it has for itself alone."""

    device: str
    key: bytes
    certificate: str
    password: str
    memory: Memory = Memory()

    @classmethod
    def of(cls, key: PrivateKey, enrolled: Enrolled) -> "Identity":
        """The identity that the fleet's answer to an enrolment makes."""
        return cls(
            device=enrolled.device,
            key=key.private_bytes_raw(),
            certificate=enrolled.certificate,
            password=enrolled.mqtt.password,
        )

    def private_key(self) -> PrivateKey:
        """The key, ready to sign."""
        return PrivateKey.from_private_bytes(self.key)

    def key_pem(self) -> bytes:
        """The key as OpenSSL reads it."""
        return self.private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Identities:
    """The identities of a folder.

    Args:
        folder: made where it is not there.
        fleet: the fleet's address; a folder belongs to one fleet.

    Raises:
        UserError: the folder cannot be used, or belongs to another fleet.
    """

    def __init__(self, folder: Path, fleet: str) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            os.close(os.open(folder / _FILE, os.O_CREAT | os.O_RDWR, _MODE))
            self._database = sqlite3.connect(folder / _FILE, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS devices (device TEXT PRIMARY KEY, identity BLOB)"
            )
            self._database.execute("CREATE TABLE IF NOT EXISTS fleet (address TEXT, said BLOB)")
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"The folder {folder} cannot be used.",
                why=f"{error}.",
                fix="Name another one with --identities.",
            ) from error
        self._belongs(fleet)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def fleet(self) -> Enrolled | None:
        """What the fleet said of itself at the last enrolment: broker, keys, authority, root."""
        said = self._database.execute("SELECT said FROM fleet").fetchone()[0]
        return msgspec.json.decode(said, type=Enrolled) if said else None

    def names(self) -> set[str]:
        """The devices that are enrolled."""
        return {name for (name,) in self._database.execute("SELECT device FROM devices")}

    def get(self, device: str) -> Identity | None:
        """A device's identity; None before it is enrolled."""
        query = "SELECT identity FROM devices WHERE device = ?"
        row = self._database.execute(query, [device]).fetchone()
        return msgspec.json.decode(row[0], type=Identity) if row else None

    def keep(self, identities: Iterable[Identity], fleet: Enrolled | None = None) -> None:
        """Write identities, and what the fleet said of itself: all of it or nothing."""
        rows = [(i.device, msgspec.json.encode(i)) for i in identities]
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO devices VALUES (?, ?)", rows)
            if fleet is not None:
                self._database.execute("UPDATE fleet SET said = ?", [msgspec.json.encode(fleet)])

    def forget(self, device: str) -> None:
        """Delete an identity: the device was wiped."""
        self._database.execute("DELETE FROM devices WHERE device = ?", [device])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _belongs(self, fleet: str) -> None:
        row = self._database.execute("SELECT address FROM fleet").fetchone()
        if row is None:
            self._database.execute("INSERT INTO fleet VALUES (?, NULL)", [fleet])
        elif row[0] != fleet:
            self.close()
            raise UserError(
                f"The devices in {self.folder} belong to another fleet.",
                why=f"They were enrolled with {row[0]}, not with {fleet}.",
                fix="Name another folder with --identities.",
            )
