"""Hooks with a JWS in a header: ES256 over the hash of the body, with a key that is asked for by its id."""

from __future__ import annotations

import hmac
import re
from datetime import datetime, timedelta
from typing import Any

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from jwt.utils import base64url_decode

from worker.errors import HookRefused
from worker.integrations.kit.hooks import Delivery, Proof, Verifier
from worker.integrations.kit.hooks.body import UnreadableBodyError, read_body
from worker.integrations.kit.hooks.signing_keys import SigningKey, SigningKeys

_ALGORITHM = "ES256"
_KID = re.compile(r"[A-Za-z0-9-]{1,128}", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SIGNATURE_BYTES = 64
_SIGNED_JUST_BEFORE = timedelta(minutes=5)
_jws = PyJWS(algorithms=[_ALGORITHM])


class SignedToken(Verifier):
    """A compact JWS whose payload has `iat` and the SHA-256 of the body.

    Nothing that the token says about itself decides how it is checked: the algorithm is fixed, and the key is the
    provider's. Deliveries have no id of their own, so the body's hash and `iat` are the id.

    Args:
        header: name of the header, in lower case.
        keys: the provider's keys.
        hash_claim: the member of the payload that has the hash of the body, in hexadecimal digits.
        oldest: a token that is older is refused.
        ahead: how far its time may be ahead of ours.
    """

    def __init__(
        self,
        header: str,
        keys: SigningKeys,
        *,
        hash_claim: str,
        oldest: timedelta = timedelta(seconds=300),
        ahead: timedelta = timedelta(seconds=60),
    ) -> None:
        self._header = header
        self._keys = keys
        self._hash_claim = hash_claim
        self._oldest = oldest
        self._ahead = ahead

    async def verify(self, delivery: Delivery) -> Proof:
        """See `Verifier`."""
        token = delivery.header(self._header)
        key = await self._keys.get(_key_id(token))
        claims = _claims(token, key)
        signed_at = claims.get("iat")
        if type(signed_at) is not int:
            raise HookRefused("time_unreadable")
        age = delivery.at.timestamp() - signed_at
        if age > self._oldest.total_seconds():
            raise HookRefused("too_old")
        if -age > self._ahead.total_seconds():
            raise HookRefused("too_new")
        _check_not_expired(key, signed_at, delivery.at)
        told = claims.get(self._hash_claim)
        if not isinstance(told, str) or not told.isascii():
            raise HookRefused("body_hash_missing")
        if not hmac.compare_digest(told.lower(), delivery.body_sha256):
            raise HookRefused("body_changed")
        return Proof(f"{delivery.body_sha256}:{signed_at}")


def _key_id(token: str) -> str:
    """The key id that the token names. Nothing else in its header is used.

    Raises:
        HookRefused: it is no compact JWS, does not name ES256, or demands an extension (`crit`).
    """
    parts = token.split(".")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise HookRefused("token_unreadable")
    try:
        header = read_body(base64url_decode(parts[0]))
        signature = base64url_decode(parts[2])
    except (UnreadableBodyError, ValueError):
        raise HookRefused("token_unreadable") from None
    if header.get("alg") != _ALGORITHM or "crit" in header:
        raise HookRefused("algorithm_refused")
    kid = header.get("kid")
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise HookRefused("key_id_unreadable")
    if len(signature) != _SIGNATURE_BYTES:  # for example in DER, which JWS does not use
        raise HookRefused("signature_wrong")
    return kid


def _claims(token: str, key: SigningKey) -> dict[str, Any]:
    try:
        payload: bytes = _jws.decode_complete(token, key.key, algorithms=[_ALGORITHM])["payload"]
    except (PyJWTError, ValueError):
        raise HookRefused("signature_wrong") from None
    try:
        return read_body(payload)
    except UnreadableBodyError:
        raise HookRefused("token_unreadable") from None


def _check_not_expired(key: SigningKey, signed_at: int, now: datetime) -> None:
    """Refuses what was signed after the key's end. A hook signed just before the end may arrive a little later."""
    if key.expired_at is None:
        return
    if signed_at >= key.expired_at.timestamp() or now > key.expired_at + _SIGNED_JUST_BEFORE:
        raise HookRefused("key_expired")
