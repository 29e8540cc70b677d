"""Passwords: argon2id by argon2-cffi, and what one must be like."""

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from edgeml.errors import UserError

MIN_LENGTH = 12
MAX_LENGTH = 1024
_HASHER = PasswordHasher()
# Each takes 64 MiB for a moment: whoever asks for many at once shall not take all memory.
_AT_ONCE = threading.BoundedSemaphore(2)
_NOBODYS: list[str] = []


def hash_password(password: str) -> str:
    """What is kept of a password."""
    with _AT_ONCE:
        return _HASHER.hash(_normal(password))


def is_password(password: str, kept: str) -> bool:
    """Whether it is the one; takes as long where nothing is kept, so that names are not told."""
    if len(password) > MAX_LENGTH:
        return False
    if not kept:
        if not _NOBODYS:
            _NOBODYS.append(hash_password("nobody's"))
        kept, password = _NOBODYS[0], ""
    with _AT_ONCE:
        try:
            return _HASHER.verify(kept, _normal(password))
        except (VerificationError, InvalidHashError):
            return False


def is_outdated(kept: str) -> bool:
    """Whether a password was hashed with parameters that are not used any more."""
    return _HASHER.check_needs_rehash(kept)


def check_password(password: str, user: str) -> str:
    """Return a password if it can be one.

    Raises:
        UserError: it is too short, too long, too plain, or has the user's name in it.
    """
    fix = f"Take {MIN_LENGTH} characters or more, such as four words that do not belong together."
    what = "The password cannot be used."
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise UserError(what, why=f"It has {len(password)} characters.", fix=fix)
    if len(set(password)) < MIN_LENGTH // 2:
        raise UserError(what, why="It has too few different characters.", fix=fix)
    if user.lower() in password.lower():
        raise UserError(what, why="It has the user's name in it.", fix=fix)
    return password


def _normal(password: str) -> str:
    """The same characters, however a keyboard put them together (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
