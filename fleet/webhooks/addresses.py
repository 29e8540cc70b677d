"""To which addresses a webhook may lead: not into the fleet's own network, unless it is allowed.

An operator names the URL, the fleet sends: without a rule, a webhook would be a way to speak to
whatever the fleet's machine reaches (services on loopback, a cloud's metadata).
"""

import ipaddress
from urllib.parse import urlsplit

from cloud_sync.address import require_private
from edgeml.errors import UserError

_MAX_URL = 2000
# Addresses that carry another one, which would not be looked at.
_WRAPPERS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")))


def check_url(url: str, *, allow_private: bool) -> None:
    """Refuse what can be no webhook's URL.

    Raises:
        UserError: it is none, would be spoken to without TLS, or names an address inside.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    is_url = len(url) <= _MAX_URL and url.isascii() and url.isprintable() and " " not in url
    if not is_url or not host or parts.scheme not in {"http", "https"} or port == 0:
        raise UserError(
            f"{url[:200]!r} is no webhook's URL.", fix="Write https://host/path, in ASCII."
        )
    if parts.username is not None or parts.password is not None:
        raise UserError(
            "A webhook's URL with a password was refused.",
            why="It would be kept and shown as it is.",
            fix="Have the receiver verify the signature instead (docs/alerts.md).",
        )
    require_private(parts.scheme, host, of="webhook")
    named = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
    if _is_address(named) and not may_reach(named, allow_private=allow_private):
        raise UserError(
            f"The webhook at {host} was refused.",
            why="The address is not a public one.",
            fix="If it is meant, add it with --allow-private.",
        )


def may_reach(address: str, *, allow_private: bool) -> bool:
    """Whether a webhook may be sent to an IP address.

    >>> may_reach("93.184.215.14", allow_private=False)
    True
    >>> may_reach("10.0.0.1", allow_private=False), may_reach("10.0.0.1", allow_private=True)
    (False, True)
    >>> may_reach("169.254.169.254", allow_private=True)  # a cloud's metadata
    False
    >>> may_reach("::ffff:10.0.0.1", allow_private=False), may_reach("::7f00:1", allow_private=True)
    (False, False)
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_multicast or found.is_unspecified or found.is_link_local or found.is_reserved:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.is_site_local:
        return False
    if any(found in network for network in _WRAPPERS):
        return False
    return found.is_global or (allow_private and (found.is_private or found.is_loopback))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
