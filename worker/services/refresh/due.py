"""When a token is refreshed, and when a failed refresh is tried again. Pure: no clock, no randomness, no database.

Every provider has two independent dates. The due time, computed here, says when to refresh the access token. The end of
the grant (`grant_expires_at`) depends on the user's consent alone. A refresh never moves it; it only causes warnings.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b
from uuid import UUID

from worker.integrations.kit.base import RefreshPolicy

RETRY_UNKNOWN_AFTER = timedelta(seconds=30)
"""Wait before the retry after an unknown outcome. Short: the old token may be accepted again for some minutes."""

RETRY_AGAIN_AFTER = timedelta(minutes=15)
"""Wait before every further retry; there are more than one only when a gateway answered."""

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
    """When the access token of this generation is to be refreshed; None when it is never refreshed.

    The latest moment is the expiry minus the policy's margin. For a lifetime so short that the margin takes more than
    half of it, it is half of the lifetime. The time until then is shortened by up to a half. The share depends only on
    provider and generation, so every process computes the same due time. If all tokens of a fleet were issued in the
    same second, they fall due evenly over the second half of the longest wait: the busiest second has 1.5 times the
    mean load (the mean wait is three quarters of the longest). Less spreading would save calls but cause peaks.
    """
    if policy is None or lifetime is None:
        return None
    latest = max(lifetime - max(policy.margin, lifetime * policy.margin_share), lifetime / 2)
    return issued_at + latest * (1 - fraction(provider_id, generation) / 2)


def retry_at(now: datetime, *, provider_id: UUID, failures: int, after: timedelta | None = None) -> datetime:
    """When to try again after `failures` failed attempts in a row, this one included.

    The wait doubles from 30 s to 15 min, and varies by a quarter up or down. It is never earlier than `after`, the wait
    that the provider asked for.
    """
    wait = min(_FIRST_WAIT * (1 << min(max(failures - 1, 0), 16)), _LONGEST_WAIT)
    at = now + wait * (0.75 + fraction(provider_id, failures) / 2)
    return at if after is None else max(at, now + after)


def show_again_at(now: datetime, *, provider_id: UUID, shown: int, after: timedelta | None = None) -> datetime:
    """When to present a token again that was presented `shown` times without a known outcome.

    The first retry comes soon, every later one after 15 minutes and up to a quarter more. It is never earlier than
    `after`, the wait that the answer asked for.
    """
    wait = RETRY_UNKNOWN_AFTER if shown < 2 else RETRY_AGAIN_AFTER * (1 + fraction(provider_id, shown) / 4)
    return now + (wait if after is None else max(wait, after))


def is_usable(now: datetime, *, expires_at: datetime | None, lifetime: timedelta | None) -> bool:
    """Whether an access token is valid long enough to begin work: a minute, or a tenth of a short lifetime."""
    if expires_at is None:
        return True
    leeway = _LEEWAY if lifetime is None else min(_LEEWAY, lifetime / 10)
    return expires_at - now > leeway


def fraction(provider_id: UUID, number: int) -> float:
    """An evenly spread value in [0, 1), always the same for the same provider and number."""
    digest = blake2b(provider_id.bytes + number.to_bytes(8, "big"), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)
