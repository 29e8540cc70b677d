"""Where the device's key is kept: a file by default, or a secure element of somebody's plug-in.

A store of the entry point group `edgeml.key_stores` is called with the identity's folder and the
text after the colon of `key_store = "NAME:settings"` in agent.toml, and gives a `KeyStore`. The
keys that it returns are Ed25519: objects with `sign` and `public_key`, subclasses of
`cryptography`'s `Ed25519PrivateKey`, whose private half need never leave the chip.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from cloud_sync.trust import PrivateKey, generate, load_key, save_key
from edgeml.errors import UserError

GROUP = "edgeml.key_stores"


class KeyStore(Protocol):
    """Keeps the key in force, and beside it the next one while a certificate is asked for it."""

    def load(self) -> PrivateKey:
        """The key in force.

        Raises:
            TrustError: there is none, or it cannot be used.
        """
        ...

    def next(self) -> PrivateKey:
        """The next key: made at the first call and kept, the same one until it is promoted."""
        ...

    def promote(self) -> None:
        """Have the next key be the one in force, atomically."""
        ...


class FileKeyStore:
    """Two files of mode 0600: `device.key` and, while a renewal is under way, `next.key`."""

    def __init__(self, folder: Path) -> None:
        self._key = folder / "device.key"
        self._next = folder / "next.key"

    def load(self) -> PrivateKey:
        """The key in force."""
        return load_key(self._key)

    def next(self) -> PrivateKey:
        """The next key, made at the first call."""
        if not self._next.exists():
            save_key(generate(), self._next)
        return load_key(self._next)

    def promote(self) -> None:
        """Have the next key be the one in force."""
        self._next.replace(self._key)


def key_store(named: str, folder: Path) -> KeyStore:
    """The store that `agent.toml` names.

    Raises:
        UserError: there is none of that name, or it cannot be opened.
    """
    name, _, settings = named.partition(":")
    if name == "file":
        return FileKeyStore(folder)
    for found in entry_points(group=GROUP, name=name):
        make: Callable[[Path, str], KeyStore] = found.load()
        return make(folder, settings)
    known = ", ".join(("file", *sorted(point.name for point in entry_points(group=GROUP))))
    raise UserError(
        f"There is no key store {name[:64]!r}.",
        why=f"There are {known}.",
        fix="Install the plug-in that has it, or correct key_store in agent.toml.",
    )
