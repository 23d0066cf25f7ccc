"""Data classes for HTTP requests and answers, and functions that write exact JSON."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec

_ENCODER = msgspec.json.Encoder(decimal_format="number")

CENT = Decimal("0.01")
JSON_HEADER = (b"content-type", b"application/json")


def encode(value: Any) -> bytes:
    """`value` as JSON; a Decimal becomes a JSON number with exactly the same digits and never becomes a float."""
    return _ENCODER.encode(value)


def cents(value: Decimal) -> Decimal:
    """`value` rounded to two places, as providers state money."""
    return value.quantize(CENT, rounding=ROUND_HALF_EVEN)


def digest(*parts: object, size: int = 16) -> bytes:
    """A digest of `parts`, always the same for the same parts. All made-up ids and tokens are derived from it."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=size).digest()


def identifier(*parts: object, length: int = 37) -> str:
    """A made-up opaque id of letters and digits, always the same for the same parts."""
    raw = base64.b64encode(digest(*parts, size=48)).decode()
    return raw.replace("+", "x").replace("/", "y")[:length]


def uuid(*parts: object) -> str:
    """A made-up UUID, always the same for the same parts."""
    return str(UUID(bytes=digest(*parts), version=4))


@dataclass(slots=True)
class Request:
    """One HTTP request, below its provider's prefix (`/KEY/v1/oauth/token` has the path `/v1/oauth/token`)."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes
    _json: dict[str, Any] | None = None

    def parameters(self) -> dict[str, str]:
        """The query's parameters; if a name occurs twice, the last value counts."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def form(self) -> dict[str, str]:
        """The body as a URL-encoded form; empty if it is not one."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is not one."""
        if self._json is None:
            try:
                value = msgspec.json.decode(self.body) if self.body else {}
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                value = {}
            self._json = value if isinstance(value, dict) else {}
        return self._json

    def header(self, name: str) -> str:
        """A header by its lower-case name; empty if it is missing."""
        return self.headers.get(name.encode("ascii"), b"").decode("latin-1")


@dataclass(slots=True)
class Answer:
    """One HTTP answer.

    Attributes:
        rotated: Whether making this answer replaced a refresh token (barriers can hold before and after this).
    """

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [JSON_HEADER])
    rotated: bool = False


def json_answer(status: int, value: Any, headers: list[tuple[bytes, bytes]] | None = None) -> Answer:
    """An answer with `value` as its JSON body."""
    return Answer(status, encode(value), [JSON_HEADER, *(headers or [])])


class RefusedError(Exception):
    """Ends a request early; it contains the answer to send."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def array(records: Iterable[bytes]) -> bytes:
    """A JSON array of rendered records."""
    return b"[" + b",".join(records) + b"]"


def document(**members: Any) -> bytes:
    """A JSON object; each member is either rendered bytes or a plain value."""
    pieces = [
        encode(name) + b":" + (value if isinstance(value, bytes) else encode(value)) for name, value in members.items()
    ]
    return b"{" + b",".join(pieces) + b"}"


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Name and secret of an `Authorization: Basic` header, or None if it is not one."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, separator, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, secret) if separator else None
