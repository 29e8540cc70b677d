"""Addresses that people write: what may be spoken to, and HTTP clients that speak to nothing else.

One rule holds for HTTP and MQTT, fleet and device: without TLS nothing leaves this machine.
"""

import ipaddress

import httpx

from edgeml.errors import RemoteError, UserError


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
    return scheme in {"https", "mqtts"} or is_loopback(host)


def http_client(
    base_url: str,
    auth: httpx.Auth | None,
    timeout: httpx.Timeout,
    *,
    of: str,
    follow_redirects: bool = False,
) -> httpx.Client:
    """A client of the server at an address; `of` names what should be there.

    What is on this machine is never asked through a proxy. A redirect that gives TLS up raises
    `RemoteError`.

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
        event_hooks={"request": [refuse_plain]},
        trust_env=not is_loopback(url.host),
        verify=httpx.create_ssl_context(),  # the environment's CA also where its proxy is not used
    )
