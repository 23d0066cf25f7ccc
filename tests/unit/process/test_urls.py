from __future__ import annotations

import pytest

from worker.process.urls import split_url


@pytest.mark.parametrize(
    ("url", "netloc", "rest"),
    [
        ("sentinel://app:pw@h1,[::1]:26381/3?master=m", "app:pw@h1,[::1]:26381", ("/3", "master=m")),
        ("postgresql://a.example:1,[::1]:2/db?sslmode=require", "a.example:1,[::1]:2", ("/db", "sslmode=require")),
        ("redis://[::1]:6379", "[::1]:6379", ("", "")),
        ("redis:///0", "", ("/0", "")),
        ("redis://host?a=b", "host", ("", "a=b")),
    ],
)
def test_hosts_in_brackets_may_stand_anywhere_in_a_list(url: str, netloc: str, rest: tuple[str, str]) -> None:
    parts = split_url(url)

    assert (parts.netloc, (parts.path, parts.query)) == (netloc, rest)
    assert parts.password == ("pw" if "pw" in url else None)


@pytest.mark.parametrize("url", ["postgresql://h1,[::1/db", "redis://h1,::1]:2/0"])
def test_bracket_that_is_missing_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="IPv6"):
        split_url(url)
