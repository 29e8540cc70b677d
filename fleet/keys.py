"""The fleet's secrets, made on its first start: files of mode 0600 in the folder `keys`.

The director key signs everything that goes down to devices, the CA issues their certificates.
The operator's token lies beside the folder, where the command line finds it.
"""

import datetime as dt
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from cloud_sync.release import write_atomically
from cloud_sync.trust import PrivateKey, generate, key_id, load_key, save_key
from cloud_sync.trust.identity import make_ca
from cloud_sync.trust.keys import public_pem
from edgeml.errors import TrustError, UserError

OPERATOR_TOKEN = "operator.token"
_PRIVATE = 0o600
_OTHERS = 0o077
_SECRET_BYTES = 32


@dataclass(frozen=True, repr=False)
class FleetKeys:
    """All secrets of a fleet; never printed."""

    director: PrivateKey
    ca_key: PrivateKey
    ca: str
    challenge_secret: bytes
    session_secret: bytes
    operator_token: str

    @property
    def director_id(self) -> str:
        """The key id of the director key."""
        return key_id(self.director.public_key())

    @property
    def director_pem(self) -> str:
        """The director's public key, which devices are enrolled with."""
        return public_pem(self.director.public_key())


def load_or_create(data: Path, now: dt.datetime) -> FleetKeys:
    """Read the fleet's secrets from its data folder, and make those that are not there yet.

    Raises:
        TrustError: a secret can be read by others, or is damaged.
        UserError: the folder cannot be written.
    """
    folder = data / "keys"
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        director = _key(folder / "director.key")
        ca_key = _key(folder / "ca.key")
        ca_path = folder / "ca.pem"
        if not ca_path.exists():
            write_atomically(ca_path, make_ca(ca_key, now).encode())
        return FleetKeys(
            director=director,
            ca_key=ca_key,
            ca=ca_path.read_text(),
            challenge_secret=_secret(folder / "challenge.secret"),
            session_secret=_secret(folder / "session.secret"),
            operator_token=_secret(data / OPERATOR_TOKEN).decode(),
        )
    except OSError as error:
        raise UserError(
            f"The fleet's data folder {data} cannot be used.",
            why=f"{error.strerror}: {error.filename}.",
            fix="Name another folder with --data, or mend its rights.",
        ) from error


def hash_of(secret: str) -> str:
    """What is kept of a token or password that has the strength of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_token() -> str:
    """A random token with 256 bits, safe in URLs."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def _key(path: Path) -> PrivateKey:
    if not path.exists():
        save_key(generate(), path)
    return load_key(path)


def _secret(path: Path) -> bytes:
    if not path.exists():
        write_atomically(path, new_token().encode(), _PRIVATE)
    if path.stat().st_mode & _OTHERS:
        raise TrustError(f"The secret {path} can be read by others.", fix=f"Run: chmod 600 {path}")
    secret = path.read_bytes().strip()
    if not secret:
        raise TrustError(f"The secret {path} is empty.", fix="Remove it: a new one is made.")
    return secret
