"""How TUF's client fetches from a folder: what came on a stick, in place of a server."""

from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

URL = "folder:/"
_CHUNK = 1 << 16
_LACKS = 404


class FolderFetcher(FetcherInterface):
    """Serves `metadata/...` and `targets/...` of a folder below `URL`.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The bytes of a file.

        Raises:
            DownloadError: it is not there (`DownloadHTTPError`) or cannot be read.
        """
        path = (self._folder / url.removeprefix(URL).lstrip("/")).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise DownloadHTTPError(f"The bundle has no {path.name}", _LACKS)
        try:
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise DownloadError(f"{path} cannot be read: {error}") from error
