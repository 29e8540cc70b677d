"""This device's credentials for registries other than the fleet's: `identity/registries.json`.

Mode 0600 and never logged. They are made here, by whoever sets the device up, and pass neither
through the fleet nor through a desired state. A registry is given its own only.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from cloud_sync.mirrors import split_address
from cloud_sync.release import write_atomically
from edgeml.errors import DeviceError, TrustError, UserError

if TYPE_CHECKING:
    import httpx

_OTHERS = 0o077
_Text = Annotated[str, msgspec.Meta(max_length=16 << 10)]


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name and password, or a token in its place, for a registry."""

    username: _Text
    password: _Text

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"


def log_in(data: Path, address: str, username: str, password: str) -> None:
    """Keep the credentials for a registry; an empty name forgets them.

    Raises:
        UserError: the address is none.
        TrustError: the file is damaged, or others can read it.
        DeviceError: it cannot be written.
    """
    base, _ = split_address(address)
    known = _read(data)
    known.pop(base, None)
    if username:
        if not password:
            raise UserError("The password is empty.", fix="Write it to standard input.")
        known[base] = Login(username=username, password=password)
    try:
        write_atomically(_path(data), msgspec.json.encode(known), 0o600)
    except OSError as error:
        raise DeviceError(
            f"{_path(data)} cannot be written.", why=f"{error.strerror or error}."
        ) from error


def credentials(data: Path) -> "Callable[[str], httpx.Auth | None]":
    """What to answer a registry's challenge with, by its address; None where nothing is known.

    The file is read at every call, so that a new password holds for the next connection.
    """

    def of(address: str) -> "httpx.Auth | None":
        base, _ = split_address(address)
        login = _read(data).get(base)
        if login is None:
            return None
        from cloud_sync.registry_auth import RegistryAuth

        return RegistryAuth(base, login.username, login.password)

    return of


def _read(data: Path) -> dict[str, Login]:
    path = _path(data)
    try:
        if path.stat().st_mode & _OTHERS:
            raise TrustError(f"{path} can be read by others.", fix=f"chmod 600 {path}")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Login])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, ValueError, RecursionError) as error:
        raise TrustError(
            f"{path} cannot be read.", why=f"{type(error).__name__}.", fix="Log in again."
        ) from None


def _path(data: Path) -> Path:
    return data / "identity" / "registries.json"
