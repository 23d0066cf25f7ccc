"""The keys with which Plaid signs its hooks, and the hooks' bodies."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from worker.integrations.plaid.stand_in.errors import PlaidError
from worker.integrations.plaid.stand_in.items import Item
from worker.sandbox.clock import Clock
from worker.sandbox.wire import digest, identifier

_BYTES = 32


@dataclass(slots=True)
class _Key:
    kid: str
    private: ec.EllipticCurvePrivateKey
    created_at: datetime
    expired_at: datetime | None = None


class HookKeys:
    """The key pairs. The newest one signs; the others have an end.

    Args:
        seed: determines the keys.
        clock: the stand-in's time.
    """

    def __init__(self, seed: int, clock: Clock) -> None:
        self._seed = seed
        self._clock = clock
        self._keys: list[_Key] = []

    def rotate(self) -> str:
        """Makes a new key, which signs from now on, and ends the one before it. Returns the new key's id."""
        now, number = self._clock.now(), len(self._keys)
        if self._keys:
            self._keys[-1].expired_at = now
        secret = int.from_bytes(digest(self._seed, "hook key", number, size=_BYTES - 1), "big") + 1
        kid = identifier(self._seed, "kid", number, length=36)
        self._keys.append(_Key(kid, ec.derive_private_key(secret, ec.SECP256R1()), now))
        return kid

    @property
    def _newest(self) -> _Key:
        if not self._keys:
            self.rotate()
        return self._keys[-1]

    def public(self, kid: str) -> dict[str, Any]:
        """The key as `/webhook_verification_key/get` gives it.

        Raises:
            PlaidError: there is no such key.
        """
        found = next((key for key in [self._newest, *self._keys] if key.kid == kid), None)
        if found is None:
            raise PlaidError("INVALID_WEBHOOK_VERIFICATION_KEY_ID")
        numbers = found.private.public_key().public_numbers()
        return {
            "alg": "ES256",
            "crv": "P-256",
            "kid": kid,
            "kty": "EC",
            "use": "sig",
            "x": _text(numbers.x.to_bytes(_BYTES, "big")),
            "y": _text(numbers.y.to_bytes(_BYTES, "big")),
            "created_at": int(found.created_at.timestamp()),
            "expired_at": None if found.expired_at is None else int(found.expired_at.timestamp()),
        }

    def sign(self, body: bytes) -> str:
        """The value of the header `Plaid-Verification` for a body."""
        key = self._newest
        header = {"alg": "ES256", "kid": key.kid, "typ": "JWT"}
        claims = {"iat": int(self._clock.seconds()), "request_body_sha256": hashlib.sha256(body).hexdigest()}
        signed = ".".join(_text(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(key.private.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{_text(r.to_bytes(_BYTES, 'big') + s.to_bytes(_BYTES, 'big'))}"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


_EXTRA: dict[str, dict[str, Any]] = {
    "TRANSACTIONS/SYNC_UPDATES_AVAILABLE": {"initial_update_complete": True, "historical_update_complete": True},
    "HOLDINGS/DEFAULT_UPDATE": {"error": None, "new_holdings": 0, "updated_holdings": 1},
    "INVESTMENTS_TRANSACTIONS/DEFAULT_UPDATE": {
        "error": None,
        "new_investments_transactions": 1,
        "cancelled_investments_transactions": 0,
    },
    "LIABILITIES/DEFAULT_UPDATE": {
        "error": None,
        "account_ids_with_new_liabilities": [],
        "account_ids_with_updated_liabilities": {},
    },
    "ITEM/USER_PERMISSION_REVOKED": {"error": None},
    "ITEM/NEW_ACCOUNTS_AVAILABLE": {"error": None},
}


def body_of(kind: str, item: Item, **extra: Any) -> bytes:
    """The body of a hook; `kind` is its type and its code with a slash in between. Plaid indents by two spaces."""
    type_, _, code = kind.partition("/")
    members = {"webhook_type": type_, "webhook_code": code, "item_id": item.id, "environment": "sandbox"}
    return json.dumps(members | _EXTRA.get(kind, {}) | extra, indent=2).encode()
