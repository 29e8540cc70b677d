"""Who is let in, decided from a request's head alone: pure.

A page in a browser on this machine can send requests to loopback. Three checks keep it out: the
Host that it asks for must be an address or a name of this machine (so that a foreign name which
was made to point here is refused), what browsers say of another page's request is believed, and
where a token is asked for it must be there.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

Refusal = tuple[int, str]


def refusal(
    method: str,
    path: str,
    headers: Mapping[str, str],
    *,
    names: Collection[str] | None,
    token: str = "",
) -> Refusal | None:
    """Why a request is not let in: the status and a sentence; None where it is.

    Args:
        method: as sent.
        path: without its query.
        headers: by lower-case name.
        names: of this machine; None where no browser can come (a Unix socket).
        token: that is asked for; empty where none is.
    """
    host = headers.get("host", "")
    if names is not None and not _is_ours(host, names):
        return 421, f"The host {host[:100]!r} is no name of this device. Ask for its address."
    if _is_foreign(method, path, headers, host):
        return 403, "A page of another site may not use the local API."
    if token and not _has_token(headers.get("authorization", ""), token):
        return 401, "A token is needed: Authorization: Bearer TOKEN."
    return None


def _is_ours(host: str, names: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_foreign(method: str, path: str, headers: Mapping[str, str], host: str) -> bool:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return True
    if headers.get("sec-fetch-site", "none") in {"none", "same-origin"}:
        return False
    # A link on another page may lead to ours.
    leads_here = headers.get("sec-fetch-mode") == "navigate" and method == "GET" and path == "/"
    return not leads_here


def _has_token(authorization: str, token: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":  # what a browser asks a person for; the name does not matter
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())
