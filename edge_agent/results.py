"""The device's own results file: one JSON line a frame, bounded by rotation."""

import contextlib
import io
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

MAX_BYTES = 16 << 20

log = logging.getLogger(__name__)


class ResultsFile:
    """Appends to `results.jsonl`; at its bound it becomes `results.jsonl.1`.

    Safe to use from the workers of several models. A full disk loses lines of this file, and
    nothing else: it is a convenience for the site, the fleet's records have the outbox.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._stream: io.FileIO | None = None
        self._size = 0
        self._failing = False
        with contextlib.suppress(OSError):
            self._open()

    def write(self, result: dict[str, Any]) -> None:
        """Append one result."""
        line = json.dumps(result, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                self._append(line)
                self._failing = False
            except (OSError, ValueError) as error:
                if not self._failing:
                    log.warning("results cannot be written to %s: %s", self._path, error)
                self._failing = True

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._close()

    def _append(self, line: bytes) -> None:
        stream = self._open()
        if self._size and self._size + len(line) > self._max_bytes:
            self._close()
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
            stream = self._open()
        self._size += stream.write(line)

    def _open(self) -> io.FileIO:
        if self._stream is None:
            self._stream = self._path.open("ab", buffering=0)
            self._size = self._stream.tell()
        return self._stream

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._size = None, 0
