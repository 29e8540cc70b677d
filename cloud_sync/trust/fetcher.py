"""How TUF's client of a device fetches: over the device's own HTTP client, never without end.

python-tuf bounds the bytes of every file; here the time is bounded, too. A timeout between two
bytes is not enough: a server that sends one byte now and then would keep a device for ever.
"""

import time
from collections.abc import Callable, Iterator

import httpx
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

MAX_SECONDS = 120.0  # a full-grown file of 5 MB at 42 kB/s
_FIRST_ERROR = 400
# What a compressed answer grows into is bounded by nobody, so none is asked for or unpacked.
_HEADERS = {"Accept-Encoding": "identity"}


class HttpxFetcher(FetcherInterface):
    """Fetches with an httpx client, for instance that of `cloud_sync.address.http_client`.

    Args:
        client: the connection; its own timeouts bound the wait for the next byte.
        max_seconds: how long one file may take.
        monotonic: the clock that measures it, in seconds.
    """

    def __init__(
        self,
        client: httpx.Client,
        *,
        max_seconds: float = MAX_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._max_seconds = max_seconds
        self._monotonic = monotonic

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The bytes of a file.

        Raises:
            DownloadError: the server cannot be reached or cut the answer off, sends too slowly
                (`SlowRetrievalError`) or refuses (`DownloadHTTPError`).
        """
        end = self._monotonic() + self._max_seconds
        try:
            with self._client.stream("GET", url, headers=_HEADERS) as answer:
                if answer.status_code >= _FIRST_ERROR:
                    raise DownloadHTTPError(
                        f"The server answered {answer.status_code} for {url}", answer.status_code
                    )
                for chunk in answer.iter_raw():
                    if self._monotonic() > end:
                        raise SlowRetrievalError(f"{url} took over {self._max_seconds:.0f} s")
                    yield chunk
        except httpx.TimeoutException as error:
            raise SlowRetrievalError(f"{url} did not come in time: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadError(f"{url}: {type(error).__name__}: {error}") from error
