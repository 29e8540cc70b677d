"""HTTP clients for addresses that people write."""

import httpx

from edgeml.errors import UserError


def http_client(
    base_url: str,
    auth: httpx.Auth | None,
    timeout: httpx.Timeout,
    *,
    of: str,
    follow_redirects: bool = False,
) -> httpx.Client:
    """A client of the server at an address; `of` names what should be there.

    Raises:
        UserError: the address is none.
    """
    try:
        url = httpx.URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise httpx.InvalidURL("It does not begin with http:// or https:// and a host")
        return httpx.Client(
            base_url=url, auth=auth, timeout=timeout, follow_redirects=follow_redirects
        )
    except httpx.InvalidURL as error:
        raise UserError(
            f"{base_url[:200]!r} is no {of}'s address.",
            why=f"{error}.",
            fix="Write http://host:port or https://host:port.",
        ) from None
