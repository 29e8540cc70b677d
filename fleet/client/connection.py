"""How the client speaks to the fleet: its token, its patience, its errors.

What may be said twice is said again where an answer was lost on the way: a POST carries an
`Idempotency-Key`, by which the fleet gives the same answer and does nothing a second time.
"""

import secrets
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from cloud_sync.address import http_client
from edgeml import errors
from edgeml.errors import EdgemlError, RemoteError
from fleet.resources import Page

ATTEMPTS = 3
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_PASSING = frozenset({429, 502, 503, 504})
_LOST = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class BearerAuth(httpx.Auth):
    """Sends the operator's token, to the fleet's own host only."""

    def __init__(self, base_url: str, token: str) -> None:
        self._host = httpx.URL(base_url).netloc
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header."""
        if self._token and request.url.netloc == self._host:
            request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class Connection:
    """What the calls of every area are made of; safe to use from several threads.

    Args:
        base_url: the operators' listener, `http://127.0.0.1:8080`.
        token: the operator's token.

    Raises:
        UserError: the address is none, or would be spoken to without TLS over a network.
    """

    def __init__(self, base_url: str, token: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._client = http_client(self._base_url, None, _TIMEOUT, of="fleet")
        self._auth = self._client.auth = BearerAuth(self._base_url, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _pages(self, path: str, **query: Any) -> Iterator[Any]:
        after: str | None = None
        while True:
            extra = {"after": after} if after is not None else {}
            page: Page[Any] | list[Any] = self._get(path, limit="1000", **extra, **query)
            if isinstance(page, list):
                yield from page
                return
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def _get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params={k: v for k, v in query.items() if v})

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        key = {"Idempotency-Key": secrets.token_urlsafe(18)}
        return self._call("POST", path, json=body, headers=key)

    def _put(self, path: str, body: Mapping[str, Any], reason: str, etag: str = "") -> Any:
        headers = {"If-Match": etag} if etag else {}
        params = {"reason": reason} if reason else {}
        return self._call("PUT", path, json=body, params=params, headers=headers)

    def _delete(self, path: str, **query: str) -> Any:
        return self._call("DELETE", path, params={k: v for k, v in query.items() if v})

    def _call(self, method: str, path: str, **request: Any) -> Any:
        response = self._answer(method, path, **request)
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            return response.json()
        except ValueError:
            raise RemoteError(
                f"The fleet at {self._base_url} answered something that is not JSON.",
                fix="Check that --fleet names the operators' listener.",
            ) from None

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        again = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1),
            retry=retry_if_exception_type((_Passing, *_LOST)),
            reraise=True,
        )
        try:
            response = again(self._once, method, path, request)
        except _Passing as passing:
            response = passing.response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RemoteError(
                f"The fleet at {self._base_url} cannot be reached.",
                why=f"{type(error).__name__}: {error}.",
                fix="Start it with `edgeml fleet up`, or name it with --fleet.",
            ) from error
        if not response.is_success:
            raise error_of(response)
        return response

    def _once(self, method: str, path: str, request: Mapping[str, Any]) -> httpx.Response:
        response = self._client.request(method, f"/api/v1{path}", **request)
        if response.status_code in _PASSING:
            raise _Passing(response)
        return response


class _Passing(Exception):  # noqa: N818 -- an answer more than a fault
    """An answer that may be another one in a moment."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def error_of(response: httpx.Response) -> EdgemlError:
    """The error that a problem document tells of."""
    try:
        body = response.json()
        what, why = str(body.get("what") or body["title"]), str(body.get("why", ""))
        detail, fix, kind = str(body["detail"]), str(body.get("fix", "")), str(body.get("kind", ""))
    except (ValueError, KeyError, AttributeError, TypeError):
        return RemoteError(f"The fleet answered {response.status_code}.", why=response.text[:200])
    if response.status_code == httpx.codes.UNAUTHORIZED and "what" not in body:
        return errors.TrustError(
            "The fleet refused the token.",
            why="It is none of this fleet's, or it has ended.",
            fix="Log in, edgeml login; or give another with --token, or a folder with --data.",
        )
    found = getattr(errors, kind, None)
    raised: type[EdgemlError] = RemoteError
    if isinstance(found, type) and issubclass(found, EdgemlError):
        raised = found
    if "what" not in body and detail != what:
        why = why or detail
    return raised(what, why=why, fix=fix)


def part(name: str) -> str:
    """A segment of a path, quoted."""
    return quote(name, safe="")
