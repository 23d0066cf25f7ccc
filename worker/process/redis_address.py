"""Addresses of Redis: one server, or a primary that Sentinels know.

`redis://user:password@host:6379/0`, `rediss://…` with TLS, and `sentinel://user:password@host:26379,host:26379/0?
master=name`, `sentinels://…` with TLS. User and password are those of Redis itself; `sentinel_user` and
`sentinel_password` are for the Sentinels, if these want any.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from worker.process.urls import split_url

SCHEMES = ("redis", "rediss", "sentinel", "sentinels")
TLS_OPTIONS = ("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile")
SENTINEL_OPTIONS = ("master", "sentinel_user", "sentinel_password")
_PORT_MAX = 65535


@dataclass(frozen=True)
class RedisAddress:
    """The parts of an address.

    Attributes:
        scheme: one of `SCHEMES`.
        hosts: hosts and ports; several only for Sentinels.
        database: number of the database.
        user: user of Redis.
        password: password of Redis.
        tls: options of the encrypted connection, with redis-py's names.
        master: the name under which Sentinels know the primary; empty for a single server.
        sentinel_user: user of the Sentinels.
        sentinel_password: password of the Sentinels.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: dict[str, Any] = field(default_factory=dict)
    master: str = ""
    sentinel_user: str = ""
    sentinel_password: str = field(default="", repr=False)

    @property
    def has_sentinels(self) -> bool:
        """Whether the hosts are Sentinels."""
        return self.scheme.startswith("sentinel")

    @property
    def is_encrypted(self) -> bool:
        """Whether connections are encrypted."""
        return self.scheme in ("rediss", "sentinels")

    @property
    def place(self) -> str:
        """Where it is, for a person; without the password."""
        hosts = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"the primary {self.master!r} of the Sentinels {hosts}" if self.has_sentinels else hosts

    @property
    def for_kombu(self) -> str:
        """The address in kombu's form, which lists Sentinels as several URLs."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.password else ""
        hosts = [(f"[{host}]" if ":" in host else host, port) for host, port in self.hosts]
        return ";".join(f"sentinel://{login}{host}:{port}/{self.database}" for host, port in hosts)

    def sentinel_login(self) -> dict[str, Any]:
        """User and password of the Sentinels, with redis-py's names."""
        named = {"username": self.sentinel_user, "password": self.sentinel_password}
        return {name: value for name, value in named.items() if value}


def parse(url: str) -> RedisAddress:
    """Takes an address apart.

    Raises:
        ValueError: it cannot be used. The text says which form can be used, and does not show the password.
    """
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in SCHEMES:
        raise ValueError("must begin with redis:// or rediss://, or with sentinel:// or sentinels://")
    try:
        parts = split_url(url)
    except ValueError:
        raise ValueError("is not a readable address; put brackets only around IPv6 hosts") from None
    form = _form(scheme)
    login, _, hosts = parts.netloc.rpartition("@")
    if "," in hosts and not scheme.startswith("sentinel"):
        raise ValueError(
            f"names several servers; name one: the primary, or a proxy in front of it; {form}. For Sentinels:"
            f" {_form('sentinel')}"
        )
    database = parts.path.strip("/") or "0"
    if not (database.isascii() and database.isdigit()):
        raise ValueError(f"has a database that is no number; {form}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = TLS_OPTIONS + (SENTINEL_OPTIONS if scheme.startswith("sentinel") else ())
    for name in options:
        if name not in known:
            raise ValueError(f"{name} is no option of this address; there are {', '.join(known)}")
    if scheme.startswith("sentinel") and not options.get("master"):
        raise ValueError(f"does not name the primary that the Sentinels know; {form}")
    user, _, password = login.partition(":")
    port = 26379 if scheme.startswith("sentinel") else 6379
    return RedisAddress(
        scheme=scheme,
        hosts=tuple(_host(entry, port, form) for entry in hosts.split(",")),
        database=int(database),
        user=unquote(user),
        password=unquote(password),
        tls={name: value for name, value in options.items() if name in TLS_OPTIONS},
        master=options.get("master", ""),
        sentinel_user=options.get("sentinel_user", ""),
        sentinel_password=options.get("sentinel_password", ""),
    )


def _form(scheme: str) -> str:
    if scheme.startswith("sentinel"):
        return f"the form is {scheme}://user:password@host:26379,host:26379/0?master=name"
    return f"the form is {scheme}://user:password@host:6379/0"


def _host(entry: str, default_port: int, form: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{entry}")
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError:
        raise ValueError(f"has a port that is no number from 1 to {_PORT_MAX}; {form}") from None
