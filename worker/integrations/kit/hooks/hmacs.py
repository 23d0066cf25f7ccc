"""Hooks that are signed with a shared secret (HMAC-SHA256)."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from worker.errors import ConfigurationError, HookRefused
from worker.integrations.kit.hooks import Delivery, Proof, Verifier
from worker.integrations.kit.hooks.body import UnreadableBodyError, read_body

_UNIX = re.compile(r"\d{1,12}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_SIGNATURES = 10


class _Secrets:
    """The active secrets. While a secret is being replaced, there are two of them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets or not all(secrets):
            raise ConfigurationError("a secret for hooks is missing or empty")
        self._keys = [secret.encode() for secret in secrets]

    def sign(self, message: bytes) -> list[bytes]:
        return [hmac.new(key, message, sha256).digest() for key in self._keys]


def _matches(expected: Sequence[bytes], given: Sequence[bytes]) -> bool:
    """Whether any given signature is an expected one. All are compared, so that the time tells nothing."""
    found = False
    for one in given:
        for other in expected:
            found |= hmac.compare_digest(one, other)
    return found


class TimestampedHmac(Verifier):
    """A header like `t=1700000000,v1=5257a8…[,v1=…]`; what is signed is `t`, a full stop, and the raw body.

    Args:
        header: name of the header, in lower case.
        secrets: the active secrets; a signature with any of them is accepted.
        tolerance: how far `t` may be from our time, in both directions.
    """

    def __init__(self, header: str, secrets: Sequence[str], *, tolerance: timedelta) -> None:
        self._header = header
        self._secrets = _Secrets(secrets)
        self._tolerance = tolerance

    async def verify(self, delivery: Delivery) -> Proof:
        """See `Verifier`."""
        pairs = [part.strip().partition("=") for part in delivery.header(self._header).split(",")]
        times = [value for name, _, value in pairs if name == "t"]
        given = [value.lower() for name, _, value in pairs if name == "v1"]
        if len(times) != 1 or not _UNIX.fullmatch(times[0]):
            raise HookRefused("header_unreadable")
        if not given or len(given) > _MOST_SIGNATURES:
            raise HookRefused("signature_missing" if not given else "header_unreadable")
        expected = self._secrets.sign(times[0].encode() + b"." + delivery.body)
        readable = [bytes.fromhex(value) for value in given if _HEX.fullmatch(value)]
        if not _matches(expected, readable):
            raise HookRefused("signature_wrong")
        away = delivery.at.timestamp() - int(times[0])
        if abs(away) > self._tolerance.total_seconds():
            raise HookRefused("too_old" if away > 0 else "too_new")
        return Proof()


class CanonicalHmac(Verifier):
    """A header with base64 of the HMAC of the body's canonical JSON: keys sorted, no spaces, ASCII escapes.

    The sender computes it from its own object, so numbers may be written in the body otherwise than Python writes them.
    Both ways are tried: numbers as Python writes them, and numbers exactly as they are in the body.

    Args:
        header: name of the header, in lower case.
        secrets: the active secrets; a signature with any of them is accepted.
        time_field: the member of the body with the time of the event, in ISO 8601.
        tolerance: an older event is a repeated delivery: it is accepted as late. Repeated deliveries keep their time.
        ahead: how far the time may be ahead of ours.
    """

    def __init__(
        self,
        header: str,
        secrets: Sequence[str],
        *,
        time_field: str,
        tolerance: timedelta = timedelta(seconds=300),
        ahead: timedelta = timedelta(seconds=60),
    ) -> None:
        self._header = header
        self._secrets = _Secrets(secrets)
        self._time_field = time_field
        self._tolerance = tolerance
        self._ahead = ahead

    async def verify(self, delivery: Delivery) -> Proof:
        """See `Verifier`."""
        try:
            given = base64.b64decode(delivery.header(self._header), validate=True)
        except (binascii.Error, ValueError):
            raise HookRefused("header_unreadable") from None
        try:
            body = read_body(delivery.body)
            texts = [canonical(body), canonical(read_body(delivery.body, number=_Number))]
        except UnreadableBodyError:
            raise HookRefused("body_unreadable") from None
        if not _matches([signed for text in texts for signed in self._secrets.sign(text)], [given]):
            raise HookRefused("signature_wrong")
        age = delivery.at - _moment(body.get(self._time_field))
        if age < -self._ahead:
            raise HookRefused("too_new")
        return Proof(is_late=age > self._tolerance)


class _Number(str):
    """The text of a number, exactly as it is in the body."""

    __slots__ = ()


def canonical(value: Any) -> bytes:
    """A value as canonical JSON: what `json.dumps(value, separators=(",", ":"), sort_keys=True)` gives."""
    return _written(value).encode()


def _written(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written(member) for member in value) + "]"
    return json.dumps(value)


def _moment(value: object) -> datetime:
    try:
        read = datetime.fromisoformat(value if isinstance(value, str) else "")
        return read.replace(tzinfo=read.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise HookRefused("time_unreadable") from None
