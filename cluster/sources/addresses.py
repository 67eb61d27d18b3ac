"""What may be said of an address, and where it leads."""

import ipaddress
import re
import socket
from urllib.parse import urlsplit

_QUERY = re.compile(r"""(/[^\s?#'"<>]*)[?#][^\s'"<>]*""")
_USER = re.compile(r"""(://)[^\s/?#@'"]*@""")


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, as a token may be bound to. ValueError for a port that is none."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def without_queries(text: str) -> str:
    """A message without the queries and the user's part of addresses in it: a store that was redirected to signs them,
    and a ledger is read by others.
    """
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))


def is_near(url: str) -> bool:
    """Whether its host is this machine or its link, where clouds tell a node its credentials. A host that only a proxy
    can resolve is not.
    """
    host = urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    for *_, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_loopback or address.is_link_local or address.is_unspecified:
            return True
    return False
