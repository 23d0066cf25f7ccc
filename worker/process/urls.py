"""Takes URLs apart that may list several hosts, such as those of Postgres and of Redis behind Sentinels."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

_END_OF_HOSTS = re.compile(r"[/?#]")


def split_url(url: str) -> SplitResult:
    """Like `urlsplit`, which in newer releases of Python refuses an IPv6 host that is not the first of a list.

    Raises:
        ValueError: a host in brackets is no IPv6 address, or a bracket is missing.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return urlsplit(url)
    netloc = _END_OF_HOSTS.split(rest, maxsplit=1)[0]
    for host in netloc.rpartition("@")[2].split(","):
        urlsplit(f"//{host}")
    return urlsplit(f"{scheme}://{rest[len(netloc) :]}")._replace(netloc=netloc)
