"""When a token is refreshed, and when a failed refresh is tried again. Pure: no clock, no chance, no database.

Two clocks run for every provider and never touch. The access clock, here, says when to refresh. The grant clock
(`grant_expires_at`) starts with the user's consent, is never moved by a refresh, and is only warned about.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b
from uuid import UUID

from worker.integrations.base import RefreshPolicy

RETRY_UNKNOWN_AFTER = timedelta(seconds=30)
"""Wait before the one retry after an unknown outcome: short, since providers that forgive it do so for minutes only."""

_FIRST_WAIT = timedelta(seconds=30)
_LONGEST_WAIT = timedelta(minutes=15)
_LEEWAY = timedelta(seconds=60)


def refresh_due_at(
    policy: RefreshPolicy | None,
    *,
    provider_id: UUID,
    generation: int,
    issued_at: datetime,
    lifetime: timedelta | None,
) -> datetime | None:
    """When the access token of this generation is to be refreshed; None when it never is.

    Expiry less the policy's margin, less a jitter of up to the same margin again, but never in the first half of the
    lifetime. The jitter depends on provider and generation alone: a fleet whose tokens were all issued in one second
    falls due evenly over one margin, and everyone who computes a due time gets the same one.
    """
    if policy is None or lifetime is None:
        return None
    margin = max(policy.margin, lifetime * policy.margin_share)
    jitter = margin * fraction(provider_id, generation)
    return issued_at + max(lifetime - margin - jitter, lifetime / 2)


def retry_at(now: datetime, *, provider_id: UUID, failures: int, not_before: datetime | None = None) -> datetime:
    """When to try again after `failures` failed attempts in a row, this one included.

    Doubles from 30 s to 15 min, spread by a quarter either way; `not_before` is what the provider itself asked for.
    """
    wait = min(_FIRST_WAIT * (1 << min(max(failures - 1, 0), 16)), _LONGEST_WAIT)
    at = now + wait * (0.75 + fraction(provider_id, failures) / 2)
    return at if not_before is None else max(at, not_before)


def is_usable(now: datetime, *, expires_at: datetime | None, lifetime: timedelta | None) -> bool:
    """Whether an access token will live long enough to begin work with: a minute, or a tenth of a short lifetime."""
    if expires_at is None:
        return True
    leeway = _LEEWAY if lifetime is None else min(_LEEWAY, lifetime / 10)
    return expires_at - now > leeway


def fraction(provider_id: UUID, number: int) -> float:
    """An evenly spread value in [0, 1) that is always the same for the same provider and number."""
    digest = blake2b(provider_id.bytes + number.to_bytes(8, "big"), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)
