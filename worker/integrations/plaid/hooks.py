"""Plaid's hooks: how they are verified, and what each kind asks for.

`TRANSACTIONS/SYNC_UPDATES_AVAILABLE` comes only after the first `/transactions/sync` of an Item; a login is synced as
soon as it is linked, so that call has then been made. Hooks for `/transactions/get`, which we do not use, are accepted
and ignored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from worker.errors import BadPayload, BadRequest
from worker.integrations.kit import reading
from worker.integrations.kit.hooks import Ask, Hook, Hooks, words
from worker.integrations.kit.hooks.es256 import SignedToken
from worker.integrations.kit.hooks.signing_keys import SigningKey, SigningKeys, p256_key
from worker.integrations.plaid.vocabulary import LIABILITIES_FEED

HEADER = "plaid-verification"
_NOTHING: frozenset[Ask] = frozenset()
_SYNC = frozenset({Ask.SYNC})
_CHECK = frozenset({Ask.CHECK})
_BOTH = _SYNC | _CHECK

ASKS: Mapping[str, frozenset[Ask]] = {
    "TRANSACTIONS/SYNC_UPDATES_AVAILABLE": _SYNC,
    "TRANSACTIONS/INITIAL_UPDATE": _NOTHING,
    "TRANSACTIONS/HISTORICAL_UPDATE": _NOTHING,
    "TRANSACTIONS/DEFAULT_UPDATE": _NOTHING,
    "TRANSACTIONS/TRANSACTIONS_REMOVED": _NOTHING,
    "TRANSACTIONS/RECURRING_TRANSACTIONS_UPDATE": _NOTHING,
    "INVESTMENTS_TRANSACTIONS/DEFAULT_UPDATE": _SYNC,
    "INVESTMENTS_TRANSACTIONS/HISTORICAL_UPDATE": _SYNC,
    "HOLDINGS/DEFAULT_UPDATE": _SYNC,
    "LIABILITIES/DEFAULT_UPDATE": _SYNC,
    "ITEM/ERROR": _CHECK,
    "ITEM/LOGIN_REPAIRED": _BOTH,
    "ITEM/PENDING_EXPIRATION": _CHECK,
    "ITEM/PENDING_DISCONNECT": _CHECK,
    "ITEM/USER_PERMISSION_REVOKED": _CHECK,
    "ITEM/USER_ACCOUNT_REVOKED": _BOTH,  # the list of accounts says which one
    "ITEM/NEW_ACCOUNTS_AVAILABLE": _NOTHING,
    "ITEM/WEBHOOK_UPDATE_ACKNOWLEDGED": _NOTHING,
    "DASHBOARD_CONFIGURED_ALERT/INSTITUTION_STATUS_ALERT_TRIGGERED": _NOTHING,
    "ISSUES/ISSUE_RESOLVED": _NOTHING,
}
"""What each kind of hook asks for, by type and code."""

NOTICES: Mapping[str, str] = {
    "ITEM/PENDING_DISCONNECT": "disconnects_soon",
    "ITEM/NEW_ACCOUNTS_AVAILABLE": "new_accounts",
}
"""The stages of the notices that hooks open."""

FEEDS: Mapping[str, tuple[str, ...]] = {"LIABILITIES/DEFAULT_UPDATE": (LIABILITIES_FEED,)}
"""The feeds that the next sync reads from their beginning, because it would not read them otherwise."""

_KEPT = (
    "initial_update_complete",
    "historical_update_complete",
    "new_investments_transactions",
    "cancelled_investments_transactions",
    "new_holdings",
    "updated_holdings",
)
"""Flags and counts that are kept with a delivery. None of them says anything about a person."""


class PlaidHooks(Hooks):
    """See `worker.integrations.kit.hooks.Hooks`.

    Args:
        ask_key: asks `/webhook_verification_key/get` for the key with an id; returns the body of the answer.
        environment: our environment at Plaid.
    """

    def __init__(self, ask_key: Callable[[str], Awaitable[bytes]], *, environment: str) -> None:
        async def fetch(kid: str) -> SigningKey | None:
            return await signing_key(ask_key, kid)

        verifier = SignedToken(HEADER, SigningKeys(fetch), hash_claim="request_body_sha256")
        super().__init__(verifier, environment=environment)

    def read(self, body: Mapping[str, Any]) -> Hook:
        """What a verified hook asks for."""
        kind, item = words(body.get("webhook_type"), body.get("webhook_code")), body.get("item_id")
        return Hook(
            kind,
            "",
            login=item if isinstance(item, str) else None,
            asks=ASKS.get(kind, _NOTHING),
            is_known=kind in ASKS,
            is_ours=body.get("environment") == self.environment,
            notice=NOTICES.get(kind),
            feeds=FEEDS.get(kind, ()),
            detail={name: body[name] for name in _KEPT if isinstance(body.get(name), (bool, int))},
        )


def environment_of(base_url: str) -> str:
    """Our environment at Plaid, by the address of its API. Every other address is a stand-in, which plays `sandbox`."""
    name = (urlsplit(base_url).hostname or "").partition(".")[0]
    return name if name in ("production", "development") else "sandbox"


class _Key(msgspec.Struct, gc=False):
    key: dict[str, Any]


_key = reading.Reader(_Key)


async def signing_key(ask_key: Callable[[str], Awaitable[bytes]], kid: str) -> SigningKey | None:
    """Asks for one key; None if Plaid, in this environment, has none with this id.

    Raises:
        HookRefused: it is no P-256 key for signatures.
        ProviderError: Plaid could not be asked.
    """
    try:
        jwk = _key.page(await ask_key(kid)).key
    except BadRequest:
        return None
    return SigningKey(p256_key(jwk, kid=kid), _expired_at(jwk.get("expired_at")))


def _expired_at(told: object) -> datetime | None:
    """The end of a key, which Plaid writes as seconds since 1970; None while the key is in use.

    Raises:
        BadPayload: it cannot be read; then it is unknown whether the key is in use.
    """
    if told is None:
        return None
    try:
        if type(told) is int:
            return datetime.fromtimestamp(told, UTC)
        return datetime.fromisoformat(str(told)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise BadPayload("key_unreadable") from None
