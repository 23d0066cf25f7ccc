"""Which addresses are on this machine. The sandbox listens only on these, and sends only to these."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address of this machine. The only name that counts is localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_registered(address: str, registered: str) -> bool:
    """Whether a browser may be sent to `address` after consent: the registered one, or a page on this machine.

    The page of `dashtam run` is on a port that is not known before it starts, so nobody can register it.
    """
    parts = urlsplit(address)
    return address == registered or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
