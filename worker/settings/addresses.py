"""What an address says about where a connection goes and whether anyone could listen in."""

from __future__ import annotations

import ipaddress
from urllib.parse import parse_qs, urlsplit

_TLS_MODES = {"require", "verify-ca", "verify-full"}
_NO_CHECKS = {"none", "cert_none", "optional", "cert_optional"}


def is_readable(url: str) -> bool:
    """Whether a URL can be taken apart at all."""
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def is_loopback(url: str) -> bool:
    """Whether a URL, of whatever kind, points at this machine and nowhere else.

    Postgres takes hosts from the query too, several of them, and a directory for a local socket.
    """
    try:
        parts = urlsplit(url)
        hosts = [host.strip("[]") for host in _hosts(parts.netloc)]
        query = parse_qs(parts.query)
    except ValueError:
        return False
    hosts += [host for name in ("host", "hostaddr") for value in query.get(name, []) for host in value.split(",")]
    return bool(hosts) and all(_is_local(host) for host in hosts)


def _hosts(netloc: str) -> list[str]:
    """Hosts of `user:password@host:port,host:port`, without their ports."""
    listed = netloc.rpartition("@")[2].split(",")
    hosts = [host.partition("]")[0] if host.startswith("[") else host.partition(":")[0] for host in listed]
    return [host for host in hosts if host]


def _is_local(host: str) -> bool:
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def postgres_has_tls(url: str) -> bool:
    """Whether Postgres connections are refused unless they are encrypted."""
    modes = parse_qs(urlsplit(url).query).get("sslmode", [])
    return bool(modes) and set(modes) <= _TLS_MODES


def redis_has_tls(url: str) -> bool:
    """Whether Redis connections are encrypted and the server's certificate is checked."""
    parts = urlsplit(url)
    checks = parse_qs(parts.query).get("ssl_cert_reqs", [])
    return parts.scheme == "rediss" and not {check.lower() for check in checks} & _NO_CHECKS
