"""The logins of this person on this machine: a session's token for each fleet, in one file.

`$XDG_CONFIG_HOME/edgeml/logins.json`, for its owner alone; `edgeml login` writes it.
"""

import json
import os
import time
from pathlib import Path
from typing import TypedDict

from cloud_sync.release import write_atomically
from edgeml.errors import UserError

_MODE = 0o600


class SavedLogin(TypedDict):
    """A session's token, whose it is, and its end in Unix seconds."""

    token: str
    user: str
    expires_at: float


def path() -> Path:
    """The file."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "edgeml" / "logins.json"


def find(fleet: str) -> SavedLogin | None:
    """The login at a fleet's address, if there is one that is not over."""
    found = _read().get(fleet.rstrip("/"))
    return found if found is not None and found["expires_at"] > time.time() else None


def save(fleet: str, login: SavedLogin | None) -> None:
    """Keep the login at a fleet's address, or forget it.

    Raises:
        UserError: the file cannot be written.
    """
    every = {url: one for url, one in _read().items() if one["expires_at"] > time.time()}
    every.pop(fleet.rstrip("/"), None)
    if login is not None:
        every[fleet.rstrip("/")] = login
    try:
        path().parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        write_atomically(path(), json.dumps(every, indent=1).encode(), _MODE)
    except OSError as error:
        raise UserError(
            f"The login cannot be kept in {path()}.",
            why=f"{error.strerror}.",
            fix="Name another folder with XDG_CONFIG_HOME.",
        ) from None


def _read() -> dict[str, SavedLogin]:
    try:
        found = json.loads(path().read_text())
        return {
            str(url): SavedLogin(
                token=str(one["token"]), user=str(one["user"]), expires_at=float(one["expires_at"])
            )
            for url, one in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
