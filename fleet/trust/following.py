"""What follows from what a device has of TUF's files, in one answer (`cloud_sync.trust.together`).

In a rollout thousands of devices ask from the same place: an answer is remembered until a file
is published.
"""

import re

import msgspec

from cloud_sync.trust.together import MAX_BYTES, Following
from fleet.trust.store import Store

_PATH = re.compile(r"following/(\d{1,9})/(\d{1,12})", re.ASCII)
_MOST = 64


class FollowingFiles:
    """The answers of one repository.

    Args:
        store: its files.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._published: tuple[int, ...] = ()
        self._known: dict[str, bytes] = {}

    def answer(self, path: str) -> bytes | None:
        """The answer to a request below the repository; None where it asks for something else."""
        asked = _PATH.fullmatch(path)
        published = self._store.published_at()
        if asked is None or not published:
            return None
        if published != self._published or len(self._known) >= _MOST:
            self._known, self._published = {}, published
        if path not in self._known:
            self._known[path] = msgspec.json.encode(self._following(int(asked[1]), int(asked[2])))
        return self._known[path]

    def _following(self, root: int, snapshot: int) -> Following:
        wanted: list[str] = []
        newest = root - 1
        while self._store.file(f"metadata/{newest + 1}.root.json") is not None:
            newest += 1
            wanted.append(f"metadata/{newest}.root.json")
        wanted.append("metadata/timestamp.json")
        version = self._version("metadata/timestamp.json", "snapshot.json")
        if version > snapshot:
            wanted.append(f"metadata/{version}.snapshot.json")
            targets = self._version(wanted[-1], "targets.json")
            wanted.append(f"metadata/{targets}.targets.json")
        return Following(root=newest, files=self._texts(wanted))

    def _texts(self, wanted: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        size = 0
        for path in wanted:
            data = self._store.file(path) or b""
            size += len(data)
            if not data or size > MAX_BYTES:
                break  # the device asks for the rest, one by one
            found[path] = data.decode()
        return found

    def _version(self, path: str, name: str) -> int:
        """The version of a file that another speaks of; 0 where there is none."""
        data = self._store.file(path)
        said = msgspec.json.decode(data) if data else {}
        version: int = said.get("signed", {}).get("meta", {}).get(name, {}).get("version", 0)
        return version
