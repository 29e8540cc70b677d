"""What conversions made and measured, kept by what it was made from.

An entry's name is the SHA-256 of everything that went into it: model, data, recipe, runtime,
processor, evaluator, which whoever asks gives, and edgeml's own source with the versions of
what it uses, which are part of it unless the cache `is_lasting`. Its digest is kept with it and
checked on every hit, so that a damaged entry is made again instead of believed. Entries are
written beside their place and renamed: a conversion that is stopped keeps what was finished, and
the next one goes on from there. The folder holds so many bytes and no more: what was used longest
ago goes first.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from converters.surroundings import surroundings
from edgeml.errors import UserError

_T = TypeVar("_T")
_DIGEST_BYTES = 32
_DEFAULT_MB = 4096
_KEPT_SHARE = 0.8  # of the bound, after entries had to go: not each one more has to look again


class Cache:
    """A folder of entries; several conversions may use it at once.

    Args:
        folder: made when the first entry is; None keeps nothing.
        most_bytes: what all entries together may take.
        is_lasting: whether entries outlive a change of edgeml's own source.
    """

    def __init__(
        self,
        folder: Path | None,
        most_bytes: int = _DEFAULT_MB << 20,
        *,
        is_lasting: bool = False,
    ) -> None:
        self._folder = folder
        self._is_lasting = is_lasting
        self._most_bytes = most_bytes
        self._bytes: int | None = None  # of all entries, as far as this process knows

    @property
    def lasting(self) -> "Cache":
        """The same folder for entries that other programs make, whose parts say all of it."""
        return Cache(self._folder, self._most_bytes, is_lasting=True)

    def get(self, kind: str, parts: Any) -> bytes | None:
        """The entry that was made from these parts, or None; a damaged one is removed."""
        path = self._path(kind, parts)
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        is_sound = hashlib.sha256(body).digest() == digest
        with suppress(OSError):  # a folder that only is to be read serves as it is
            if is_sound:
                os.utime(path)
            else:
                path.unlink(missing_ok=True)
        return body if is_sound else None

    def put(self, kind: str, parts: Any, body: bytes) -> None:
        """Keep an entry; a disk that is full keeps nothing, which harms nobody."""
        path = self._path(kind, parts)
        if path is None or len(body) > self._most_bytes:
            return
        written = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
            written = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(body).digest() + body)
            written.replace(path)
        except OSError:
            if written is not None:
                with suppress(OSError):
                    written.unlink(missing_ok=True)
            return
        self._bound(len(body))

    def remember(self, kind: str, parts: Any, shape: type[_T], make: Callable[[], _T]) -> _T:
        """The value that was made from these parts; made now, where it is not known.

        Args:
            kind: of value.
            parts: all that it is made from.
            shape: its type, as msgspec takes it.
            make: makes it; what it raises is not kept.
        """
        known = self.get(kind, parts)
        if known is not None:
            return msgspec.msgpack.decode(known, type=shape)
        made = make()
        self.put(kind, parts, msgspec.msgpack.encode(made))
        return made

    def drop(self, kind: str, parts: Any) -> None:
        """Forget the entry that was made from these parts."""
        path = self._path(kind, parts)
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _bound(self, added: int) -> None:
        """Remove what was used longest ago, where there is too much."""
        if self._bytes is not None:
            self._bytes += added
            if self._bytes <= self._most_bytes:
                return
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        if total > self._most_bytes:
            for _, size, path in entries:
                if total <= _KEPT_SHARE * self._most_bytes:
                    break
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    total -= size
        self._bytes = total

    def _entries(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its bytes, and where it is; leftovers are old files."""
        found = []
        assert self._folder is not None, "there is nothing to bound"
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found

    def _path(self, kind: str, parts: Any) -> Path | None:
        if self._folder is None:
            return None
        around = "" if self._is_lasting else surroundings()
        named = msgspec.json.encode([kind, around, parts], order="deterministic")
        text = hashlib.sha256(named).hexdigest()
        return self._folder / text[:2] / text


def default_cache() -> Cache:
    """The user's cache: `EDGEML_CACHE`, else `XDG_CACHE_HOME/edgeml`, else `~/.cache/edgeml`.

    An empty `EDGEML_CACHE` turns it off; `EDGEML_CACHE_MB` bounds it, at 4,096 by default.

    Raises:
        UserError: the bound is no number.
    """
    said = os.environ.get("EDGEML_CACHE_MB") or str(_DEFAULT_MB)
    if not (said.isascii() and said.isdigit()):
        raise UserError(
            f"EDGEML_CACHE_MB is {said!r}, which is no number of megabytes.",
            fix="Give one, for example 4096.",
        )
    most = int(said) << 20
    chosen = os.environ.get("EDGEML_CACHE")
    if chosen is not None:
        return Cache(Path(chosen) if chosen else None, most)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Cache(Path(base) / "edgeml", most)
