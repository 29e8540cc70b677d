"""The device's own results file: one JSON line a frame, bounded by rotation."""

import json
import os
from pathlib import Path
from typing import Any

MAX_BYTES = 16 << 20


class ResultsFile:
    """Appends to `results.jsonl`; at its bound it becomes `results.jsonl.1`."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._stream = path.open("a", buffering=1)

    def write(self, result: dict[str, Any]) -> None:
        """Append one result."""
        self._stream.write(json.dumps(result, separators=(",", ":")) + "\n")
        if self._stream.tell() > self._max_bytes:
            self._stream.close()
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
            self._stream = self._path.open("a", buffering=1)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
