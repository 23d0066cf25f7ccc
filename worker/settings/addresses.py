"""Checks of URLs: whether they can be used, lead to this machine, and give an encrypted connection."""

from __future__ import annotations

import ipaddress
import re
from typing import TypeAlias
from urllib.parse import parse_qs, parse_qsl, urlencode

from worker.process import redis_address
from worker.process.urls import split_url

_TLS_MODES = {"require", "verify-ca", "verify-full"}
_NO_CHECKS = {"none", "cert_none", "optional", "cert_optional"}
# Splits a URL as SQLAlchemy does; the password may contain every character except @.
_POSTGRES = re.compile(
    r"(?P<head>[\w+]+://(?:[^:/]*(?::[^@]*)?@)?)(?P<hosts>[^/?]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?")
_POSTGRES_PORT = "5432"
_PORT_MAX = 65535
_WEB = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::(?P<port>[0-9]{1,5}))?(?=[/?]|\Z)",
    re.IGNORECASE | re.ASCII,
)
_USUAL_PORTS = {"http": 80, "https": 443}


def postgres_url(url: str, *, writes: bool) -> str:
    """The URL of a Postgres in the form for SQLAlchemy and psycopg. It may list several hosts, as libpq allows.

    Args:
        url: `postgresql://user:password@host:port,host:port/database?option=value`.
        writes: whether, of several hosts, only one that accepts writes can be used.

    Raises:
        ValueError: it cannot be used. The text says which form can be used, and does not show the password.
    """
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    parts = _POSTGRES.fullmatch(url)
    if not url.startswith("postgresql+psycopg://") or parts is None:
        raise ValueError("must begin with postgresql://")
    if not is_readable(url):
        raise ValueError("is not a readable address; put brackets only around IPv6 hosts")
    hosts = [_host_and_port(entry) for entry in parts["hosts"].split(",")]
    options = parse_qsl(parts["query"] or "", keep_blank_values=True)
    _require_libpq_options([name for name, _ in options])
    wanted = [("target_session_attrs", "read-write")] if writes and "target_session_attrs" not in dict(options) else []
    if len(hosts) == 1:
        several = "," in dict(options).get("host", "")
        return f"{url}&{urlencode(wanted)}" if several and wanted else url
    options += [
        ("host", ",".join(host for host, _ in hosts)),
        ("port", ",".join(port or _POSTGRES_PORT for _, port in hosts)),
        *wanted,
    ]
    return f"{parts['head']}{parts['path'] or '/'}?{urlencode(options)}"


def postgres_hosts(url: str) -> list[tuple[str, int | None]]:
    """The hosts and ports in the URL of a Postgres, wherever they stand in it; a port that is not named is None."""
    parts = split_url(url)
    options = dict(parse_qsl(parts.query))
    listed = [_host_and_port(entry) for entry in parts.netloc.rpartition("@")[2].split(",") if entry]
    if options.get("host"):
        named = [_host_and_port(host) if host.count(":") == 1 else (host, "") for host in options["host"].split(",")]
        ports = options.get("port", "").split(",")
        ports = ports * len(named) if len(ports) == 1 else ports
        listed = [(host, port or other) for (host, port), other in zip(named, ports, strict=False)]
    return [(host, int(port) if port else None) for host, port in listed]


def _host_and_port(entry: str) -> tuple[str, str]:
    found = _HOST.fullmatch(entry)
    if found is None:
        raise ValueError("is not a readable address; put brackets only around IPv6 hosts")
    port = found["port"] or ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX):
        raise ValueError(
            "has a port that is no number from 1 to 65535; the form is postgresql://user:password@host:5432/name"
        )
    return found["ipv6"] or found["name"] or "", port


def _require_libpq_options(names: list[str]) -> None:
    if not names:
        return
    if "prepare_threshold" in names:
        raise ValueError("prepare_threshold is no option of an address; for a pooler set DATABASE_POOLER=true")
    from psycopg.pq import Conninfo  # imported here, because it loads libpq, which only programs with a database need

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"{unknown[0]} is no option that libpq knows; take ?{unknown[0]}=… out of the address")


def public_url(url: str) -> str:
    """An address at which others reach us, without a slash at its end: https, or http to this machine.

    Raises:
        ValueError: it is something else. The text says which form can be used.
    """
    if not is_readable(url) or not (url.startswith("https://") or (url.startswith("http://") and is_loopback(url))):
        raise ValueError("must begin with https://, for example https://dashtam.example; http is for loopback alone")
    parts = split_url(url)
    if not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be an address without a user name, a query and a fragment")
    return url.rstrip("/")


Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(listed: str) -> tuple[Network, ...]:
    """The networks in a list such as `127.0.0.0/8, fd12::/48`.

    Raises:
        ValueError: one of them is no network. The text says which form can be used.
    """
    try:
        return tuple(ipaddress.ip_network(entry.strip()) for entry in listed.split(",") if entry.strip())
    except ValueError:
        raise ValueError("must list networks such as 10.4.0.0/16, separated by commas") from None


def is_readable(url: str) -> bool:
    """Whether a URL can be parsed at all."""
    try:
        split_url(url)
    except ValueError:
        return False
    return True


def origin_of(url: str) -> str:
    """The origin of an address: `https://host`, with the port unless it is the usual one.

    Plain http is accepted only for this machine.

    Raises:
        ValueError: it is no absolute web address, or has a user's name, or a host or port that cannot be read.
    """
    found = _WEB.match(url)
    if found is None:
        raise ValueError("must begin with https:// and a host name, without a user's name")
    scheme, host, port = found["scheme"].lower(), found["host"].lower(), found["port"]
    if scheme == "http" and not is_loopback(f"http://{host}"):
        raise ValueError("must begin with https://; http:// is only for this machine")
    if port is None or int(port) == _USUAL_PORTS[scheme]:
        return f"{scheme}://{host}"
    if not 0 < int(port) <= _PORT_MAX:
        raise ValueError("has a port that is no number from 1 to 65535")
    return f"{scheme}://{host}:{int(port)}"


def is_loopback(url: str) -> bool:
    """Whether a URL of any kind leads only to this machine.

    A URL of Postgres may also have hosts in its query, several hosts, or the directory of a local socket.
    """
    try:
        parts = split_url(url)
        hosts = [host.strip("[]") for host in _hosts(parts.netloc)]
        query = parse_qs(parts.query)
    except ValueError:
        return False
    named = [host for name in ("host", "hostaddr") for value in query.get(name, []) for host in value.split(",")]
    hosts += [host.partition(":")[0] if host.count(":") == 1 else host for host in named]
    return bool(hosts) and all(_is_local(host) for host in hosts)


def _hosts(netloc: str) -> list[str]:
    """The hosts in `user:password@host:port,host:port`, without their ports."""
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
    modes = parse_qs(split_url(url).query).get("sslmode", [])
    return bool(modes) and set(modes) <= _TLS_MODES


def redis_has_tls(url: str) -> bool:
    """Whether Redis connections are encrypted and the server's certificate is checked."""
    address = redis_address.parse(url)
    return address.is_encrypted and address.tls.get("ssl_cert_reqs", "").lower() not in _NO_CHECKS
