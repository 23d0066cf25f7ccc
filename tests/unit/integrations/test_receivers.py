"""Addresses that users give: what may be saved, and what is connected to in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest

from worker.errors import BadArgument
from worker.integrations.receivers import LookUp, Receivers

HERE = (ip_network("127.0.0.0/8"),)
PUBLIC = "93.184.215.14"


def leads_to(*answers: str | Sequence[str]) -> LookUp:
    """A resolver that gives these answers in turn, then the last one for ever."""
    left = [[one] if isinstance(one, str) else list(one) for one in answers]

    async def look_up(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return look_up


async def unknown(host: str, port: int) -> list[str]:
    raise OSError("no such host")


async def public(host: str, port: int) -> list[str]:
    return [PUBLIC]


def check(url: str, look_up: LookUp = public, **options: Any) -> None:
    asyncio.run(Receivers(look_up=look_up, **options).check(url))


@pytest.mark.parametrize(
    "url", ["https://app.example.org/hooks?tenant=1", "https://app.example.org:8443", f"https://{PUBLIC}/x"]
)
def test_public_address_is_accepted(url: str) -> None:
    check(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://app.example.org/", "must begin with https://"),
        ("file:///etc/passwd", "must have the form"),
        ("ftp://app.example.org/", "must have the form"),
        ("app.example.org/hooks", "must have the form"),
        ("https:///hooks", "must have the form"),
        ("https://app.example.org:0/", "must have the form"),
        ("https://app.example.org:99999/", "must have the form"),
        ("https://[::1/", "must have the form"),
        ("https://ada:secret@app.example.org/", "user name or password"),
        ("https://@app.example.org/", "user name or password"),
        ("https://app.example.org/#here", "fragment"),
        ("https://app.example.org/#", "fragment"),
        ("https://app.example.org/a b", "ASCII and without spaces"),
        ("https://app.example.org/\r\nHost: x", "ASCII and without spaces"),
        ("https://bücher.example/", "ASCII and without spaces"),
        ("https://app.example.org/" + "x" * 2000, "at most 2000 characters"),
    ],
)
def test_address_of_another_form_is_refused(url: str, why: str) -> None:
    with pytest.raises(BadArgument, match=why) as refused:
        check(url)

    assert "secret" not in str(refused.value)
    assert "nothing was saved" in str(refused.value)


PRIVATE = (
    "127.0.0.1",
    "0.0.0.0",  # noqa: S104 - nothing listens here
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "64:ff9b:1::7f00:1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "fec0::1",
    "3fff::1",
    "5f00::1",
    "2001::80ff:fffe",
    "192.0.0.8",
    "192.88.99.1",
)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_address_is_refused_as_a_number_and_behind_a_name(address: str) -> None:
    literal = f"[{address}]" if ":" in address else address

    for url, look_up in (
        (f"https://{literal}/", unknown),
        ("https://app.example.org/", leads_to(address)),
        ("https://app.example.org/", leads_to([PUBLIC, address])),
    ):
        with pytest.raises(BadArgument, match="private network"):
            check(url, look_up)


def test_name_that_cannot_be_looked_up_is_refused() -> None:
    with pytest.raises(BadArgument, match="cannot be looked up now"):
        check("https://app.example.org/", unknown)


def test_allowed_network_may_be_private_and_without_tls_and_others_stay_refused() -> None:
    check("http://127.0.0.1:8080/", allowed=HERE)
    check("http://app.example.org/", leads_to("127.0.0.5"), allowed=HERE)
    for url, look_up in (
        ("http://app.example.org/", leads_to(PUBLIC)),
        ("http://app.example.org/", leads_to(["127.0.0.5", PUBLIC])),
        ("https://app.example.org/", leads_to("10.0.0.1")),
    ):
        with pytest.raises(BadArgument):
            check(url, look_up, allowed=HERE)
