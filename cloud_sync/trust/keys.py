"""Ed25519 keys: made, kept in files of mode 0600, named by the hash of the public half."""

import hashlib
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cloud_sync.release.blobs import write_atomically
from edgeml.errors import TrustError

PrivateKey = Ed25519PrivateKey
PublicKey = Ed25519PublicKey
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n?", re.DOTALL)


def generate() -> PrivateKey:
    """A new key."""
    return Ed25519PrivateKey.generate()


def key_id(key: PublicKey) -> str:
    """The key's name: sha256 of its SubjectPublicKeyInfo, hex."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def save_key(key: PrivateKey, path: Path, passphrase: str = "") -> None:
    """Write a private key, readable by its owner alone; encrypted if there is a passphrase."""
    locked = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    write_atomically(path, pem, 0o600)


def is_locked(path: Path) -> bool:
    """Whether a private key's file wants a passphrase; False where there is no such file."""
    try:
        return b"ENCRYPTED" in path.read_bytes()[:64]
    except OSError:
        return False


def load_key(path: Path, passphrase: str = "") -> PrivateKey:
    """Read a private key.

    Raises:
        TrustError: there is none, others may read it, or the passphrase does not open it.
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        raise TrustError(f"The key {path} cannot be read.", why=f"{error.strerror}.") from None
    if mode & 0o077:
        raise TrustError(
            f"The key {path} can be read by others.",
            why=f"Its mode is {mode & 0o777:o}.",
            fix=f"Run: chmod 600 {path}",
        )
    locked = is_locked(path)
    try:
        key = load_pem_private_key(data, passphrase.encode() if locked and passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = f"The key {path} cannot be opened." if locked else f"The key {path} is damaged."
        raise TrustError(what, why=f"{str(error).rstrip('.')}.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise TrustError(f"The key {path} is of another kind.", why="Ed25519 is needed.")
    return key


def public_pem(key: PublicKey) -> str:
    """A public key as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def split_pems(text: str) -> list[str]:
    r"""The PEM blocks of a text that may hold several.

    >>> len(split_pems("-----BEGIN A-----\nx\n-----END A-----\n" * 2))
    2
    """
    return [found.group() for found in _PEM.finditer(text)]


def fingerprint(*texts: str) -> str:
    r"""A short word for what PEM texts hold, in whatever order: another one where a block differs.

    >>> one, two = (f"-----BEGIN A-----\n{x}\n-----END A-----\n" for x in "xy")
    >>> fingerprint(one + two) == fingerprint(two + one) != fingerprint(one)
    True
    """
    blocks = [sorted(split_pems(text)) for text in texts]
    return hashlib.sha256(repr(blocks).encode()).hexdigest()[:16]


def load_public(pem: str) -> PublicKey:
    """Read a public key.

    Raises:
        TrustError: it is none, or of another kind.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError("A public key cannot be read.", why=f"{error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise TrustError("A public key is of another kind.", why="Ed25519 is needed.")
    return key
