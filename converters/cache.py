"""What conversions made and measured, kept by what it was made from.

An entry's name is the SHA-256 of everything that went into it: model, data, recipe, versions
of the tools, runtime, processor, evaluator. Its digest is kept with it and checked on every
hit, so that a damaged entry is made again instead of believed. Entries are written beside
their place and renamed: a conversion that is stopped keeps what was finished, and the next
one goes on from there.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

_DIGEST_BYTES = 32


class Cache:
    """A folder of entries; several conversions may use it at once.

    Args:
        folder: made when the first entry is; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

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
        if hashlib.sha256(body).digest() != digest:
            path.unlink(missing_ok=True)
            return None
        return body

    def put(self, kind: str, parts: Any, body: bytes) -> None:
        """Keep an entry; a disk that is full keeps nothing, which harms nobody."""
        path = self._path(kind, parts)
        if path is None:
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
                written.unlink(missing_ok=True)

    def _path(self, kind: str, parts: Any) -> Path | None:
        if self._folder is None:
            return None
        name = hashlib.sha256(msgspec.json.encode([kind, parts], order="deterministic"))
        text = name.hexdigest()
        return self._folder / text[:2] / text


def default_cache() -> Cache:
    """The user's cache: `EDGEML_CACHE`, else `XDG_CACHE_HOME/edgeml`, else `~/.cache/edgeml`.

    An empty `EDGEML_CACHE` turns it off.
    """
    chosen = os.environ.get("EDGEML_CACHE")
    if chosen is not None:
        return Cache(Path(chosen) if chosen else None)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Cache(Path(base) / "edgeml")
