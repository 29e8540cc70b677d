"""Addresses that people write: what may be spoken to, and HTTP clients that speak to nothing else.

One rule holds for HTTP and MQTT, fleet and device: without TLS nothing leaves this machine.
"""

import ipaddress
import ssl
from collections.abc import Iterator

import httpx

from cloud_sync.trust.tls import Now, judge_dates_by
from edgeml.errors import RemoteError, UserError

# The extension of a request that says how many bytes its answer may have.
MAX_BODY = "edgeml.max_body"
# What httpx reads by itself, for the sake of the connection: redirects and refusals.
_MAX_ASIDE = 64 << 10


def is_loopback(host: str) -> bool:
    """Whether packets to a host never leave this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("localhost")
    (True, False, True)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_private(scheme: str, host: str, *, of: str) -> None:
    """Refuse an address to which a packet would leave this machine without TLS.

    >>> require_private("https", "fleet.example", of="fleet")

    Raises:
        UserError: it is one.
    """
    if not is_private(scheme, host):
        raise UserError(
            f"The {of} at {scheme}://{host} was refused.",
            why=f"It is not on this machine, and {scheme}:// speaks without TLS.",
            fix=f"Use {scheme}s://; the {of} needs a certificate for that.",
        )


def is_private(scheme: str, host: str) -> bool:
    """Whether nobody on the way can read what goes to an address."""
    return scheme in {"https", "mqtts", "wss"} or is_loopback(host)


def http_client(
    base_url: str,
    auth: httpx.Auth | None,
    timeout: httpx.Timeout,
    *,
    of: str,
    follow_redirects: bool = False,
    now: Now | None = None,
) -> httpx.Client:
    """A client of the server at an address; `of` names what should be there.

    With `now`, the dates of its certificates are judged by that time and not by the wall clock.

    What is on this machine is never asked through a proxy. A redirect that gives TLS up raises
    `RemoteError`, a refusal or a redirect whose body does not end `httpx.ReadError`.

    Raises:
        UserError: the address is none, or would be spoken to without TLS over a network.
    """
    try:
        url = httpx.URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise httpx.InvalidURL("It does not begin with http:// or https:// and a host")
    except httpx.InvalidURL as error:
        raise UserError(
            f"{base_url[:200]!r} is no {of}'s address.",
            why=f"{error}.",
            fix="Write http://127.0.0.1:port or https://host:port.",
        ) from None
    require_private(url.scheme, url.host, of=of)

    def refuse_plain(request: httpx.Request) -> None:
        gives_up = url.scheme == "https" and request.url.scheme != "https"
        if gives_up or not is_private(request.url.scheme, request.url.host):
            raise RemoteError(
                f"A redirect of the {of} at {url} was refused.",
                why=f"It leads to {request.url.scheme}://{request.url.host}, without TLS.",
                fix="Have it redirect to https:// only.",
            )

    return httpx.Client(
        base_url=url,
        auth=auth,
        timeout=timeout,
        follow_redirects=follow_redirects,
        event_hooks={"request": [refuse_plain], "response": [_bound]},
        trust_env=not is_loopback(url.host),
        verify=_context(now),
    )


def _context(now: Now | None) -> ssl.SSLContext:
    # The environment's CA also where its proxy is not used.
    context = httpx.create_ssl_context()
    return judge_dates_by(context, now) if now else context


def _bound(response: httpx.Response) -> None:
    limit = response.request.extensions.get(MAX_BODY)
    if limit is None and not response.is_success:
        limit = _MAX_ASIDE
    if limit is not None and isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Bounded(response, response.stream, limit)


class _Bounded(httpx.SyncByteStream):
    """A body that is cut where it gets longer than it may."""

    def __init__(self, response: httpx.Response, body: httpx.SyncByteStream, limit: int) -> None:
        self._response = response
        self._body = body
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        for chunk in self._body:
            seen += len(chunk)
            if seen > self._limit:
                raise httpx.ReadError(
                    f"an answer {self._response.status_code} has more than {self._limit} bytes",
                    request=self._response.request,
                )
            yield chunk

    def close(self) -> None:
        self._body.close()
