"""What a device's TUF client asks for next, in one answer instead of four.

Every check asks for the next root, the timestamp, the snapshot and the targets, one after the
other: four round trips, on a mobile network a second. A fleet gives what follows from what the
device has in one answer; python-tuf judges each file as if it had come by itself. What is not in
it is fetched as ever, and so is all of it where nobody gives it together: an older fleet, a mirror.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

MAX_BYTES = 1 << 20  # of the files together; python-tuf bounds each
_MAX_ANSWER = 4 * MAX_BYTES
_ROOT = re.compile(r"metadata/(\d{1,9})\.root\.json", re.ASCII)
_NOT_FOUND = 404


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: files by their path below the repository, and the newest root's version."""

    root: int
    files: dict[str, str]


def path_of(root: int, snapshot: int) -> str:
    """Where a fleet has what follows, below its TUF files.

    Args:
        root: the first root that the device has not.
        snapshot: the snapshot's version that it has, 0 for none.
    """
    return f"following/{root}/{snapshot}"


class Together(FetcherInterface):
    """Fetches what follows at once, and hands it over as it is asked for.

    Args:
        fetcher: fetches one file.
        url: where the fleet serves `metadata/` and `targets/`.
        metadata: where the device keeps what it knows.
    """

    def __init__(self, fetcher: FetcherInterface, url: str, metadata: Path) -> None:
        self._fetcher = fetcher
        self._url = url.rstrip("/")
        self._metadata = metadata
        self._held: dict[str, str] = {}
        self._no_root = ""
        self._given = True

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The bytes of a file.

        Raises:
            DownloadError: it cannot be fetched, or is not there (`DownloadHTTPError`).
        """
        path = url.removeprefix(f"{self._url}/")
        root = _ROOT.fullmatch(path)
        if root and path not in self._held and path != self._no_root:
            self._ask(int(root[1]))  # a check begins with it
        if path in self._held:
            return iter((self._held.pop(path).encode(),))
        if path == self._no_root:
            self._no_root = ""
            raise DownloadHTTPError(f"There is no {path}", _NOT_FOUND)
        return self._fetcher.fetch(url)

    def _ask(self, root: int) -> None:
        self._held, self._no_root = {}, ""
        if not self._given:
            return
        url = f"{self._url}/{path_of(root, self._snapshot())}"
        answer = bytearray()
        try:
            for chunk in self._fetcher.fetch(url):
                answer += chunk
                if len(answer) > _MAX_ANSWER:
                    return
            found = msgspec.json.decode(answer, type=Following)
        except DownloadHTTPError as error:
            self._given = error.status_code != _NOT_FOUND
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._given = False
        else:
            self._held = found.files
            self._no_root = f"metadata/{found.root + 1}.root.json"

    def _snapshot(self) -> int:
        """The version that this device has, by what it keeps: a hint, which nothing rests on."""
        try:
            known = msgspec.json.decode((self._metadata / "timestamp.json").read_bytes())
            return int(known["signed"]["meta"]["snapshot.json"]["version"])
        except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
            return 0
