"""The fleet's secrets, made on its first start: files of mode 0600 in the folder `keys`.

The director key signs everything that goes down to devices, the CA issues their certificates;
both rotate with overlap (`fleet.ring`). The operator's token lies beside the folder, where
the command line finds it.
"""

import datetime as dt
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from cloud_sync.release import write_atomically
from cloud_sync.trust import PrivateKey, PublicKey, key_id
from cloud_sync.trust.identity import make_ca
from cloud_sync.trust.keys import load_public, public_pem, split_pems
from edgeml.errors import TrustError, UserError
from fleet.ring import Ring

OPERATOR_TOKEN = "operator.token"
AUTHORITIES = "authorities.pem"
REVOKED = "crl.pem"
_PRIVATE = 0o600
_OTHERS = 0o077
_SECRET_BYTES = 32


@dataclass(frozen=True, repr=False)
class FleetKeys:
    """All secrets of a fleet; never printed."""

    folder: Path
    directors: Ring
    cas: Ring
    challenge_secret: bytes
    session_secret: bytes
    operator_token: str

    @property
    def director(self) -> PrivateKey:
        """The key that signs what goes down."""
        return self.directors.current.key

    @property
    def director_id(self) -> str:
        """The key id of the director key."""
        return key_id(self.director.public_key())

    @property
    def director_pem(self) -> str:
        """The director's public keys that devices may take, the newest last."""
        return self.directors.trusted

    @property
    def director_keys(self) -> dict[str, PublicKey]:
        """The same, by key id."""
        keys = [load_public(pem) for pem in split_pems(self.directors.trusted)]
        return {key_id(key): key for key in keys}

    @property
    def ca_key(self) -> PrivateKey:
        """The key that issues certificates."""
        return self.cas.current.key

    @property
    def ca(self) -> str:
        """Its certificate, PEM."""
        return self.cas.current.public

    @property
    def authorities(self) -> str:
        """The certificates of all authorities that are good, PEM, the newest last."""
        return self.cas.trusted

    def refresh(self) -> None:
        """Read the rings again, where another process of the fleet has changed them."""
        self.directors.refresh()
        self.cas.refresh()

    def write_authorities(self) -> None:
        """Write the authorities into the file that a broker reads: `keys/authorities.pem`."""
        write_atomically(self.folder / AUTHORITIES, self.authorities.encode())


def load_or_create(data: Path, now: dt.datetime) -> FleetKeys:
    """Read the fleet's secrets from its data folder, and make those that are not there yet.

    Raises:
        TrustError: a secret can be read by others, or is damaged.
        UserError: the folder cannot be written.
    """
    folder = data / "keys"
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        found = FleetKeys(
            folder=folder,
            directors=Ring(folder, "director", lambda key: public_pem(key.public_key())),
            cas=Ring(folder, "ca", lambda key: make_ca(key, now), keep=True),
            challenge_secret=_secret(folder / "challenge.secret"),
            session_secret=_secret(folder / "session.secret"),
            operator_token=_secret(data / OPERATOR_TOKEN).decode(),
        )
        found.write_authorities()
        return found
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


def _secret(path: Path) -> bytes:
    if not path.exists():
        write_atomically(path, new_token().encode(), _PRIVATE)
    if path.stat().st_mode & _OTHERS:
        raise TrustError(f"The secret {path} can be read by others.", fix=f"Run: chmod 600 {path}")
    secret = path.read_bytes().strip()
    if not secret:
        raise TrustError(f"The secret {path} is empty.", fix="Remove it: a new one is made.")
    return secret
