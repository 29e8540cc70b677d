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
        self._root = self._snapshot = 0
        self._known: dict[tuple[int, bool], bytes] = {}

    def answer(self, path: str) -> bytes | None:
        """The answer to a request below the repository; None where it asks for something else.

        There are as many answers as roots, twice, whatever numbers a client makes up.
        """
        asked = _PATH.fullmatch(path)
        published = self._store.published_at()
        if asked is None or not published:
            return None
        if published != self._published or len(self._known) >= _MOST:
            self._known, self._published = {}, published
            self._root = max(self._store.versions("root"), default=0)
            self._snapshot = self._version("metadata/timestamp.json", "snapshot.json")
        root, newer = int(asked[1]), self._snapshot > int(asked[2])
        if not 1 <= root <= self._root + 1:
            return None
        if (root, newer) not in self._known:
            self._known[root, newer] = msgspec.json.encode(self._following(root, newer))
        return self._known[root, newer]

    def _following(self, root: int, newer: bool) -> Following:
        wanted = [f"metadata/{number}.root.json" for number in range(root, self._root + 1)]
        wanted.append("metadata/timestamp.json")
        if newer:
            wanted.append(f"metadata/{self._snapshot}.snapshot.json")
            targets = self._version(wanted[-1], "targets.json")
            wanted.append(f"metadata/{targets}.targets.json")
        return Following(root=self._root, files=self._texts(wanted))

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
