"""When a token is refreshed, and when a failed refresh is tried again. Pure: no clock, no chance, no database.

Every provider has two independent clocks. The access clock, here, says when to refresh. The grant clock
(`grant_expires_at`) starts with the user's consent, is never moved by a refresh, and is only warned about.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b
from uuid import UUID

from worker.integrations.kit.base import RefreshPolicy

RETRY_UNKNOWN_AFTER = timedelta(seconds=30)
"""Wait before the one retry after an unknown outcome: short, since providers that forgive it do so for minutes only."""

RETRY_AGAIN_AFTER = timedelta(minutes=15)
"""Wait before every further one, which only a gateway's error gives."""

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

    The latest moment is expiry less the policy's margin, or half of the lifetime for tokens so short that the margin
    takes more. The time until then is shortened by up to a half, by a share that depends on provider and generation
    alone: everyone who computes a due time gets the same one, and a fleet whose tokens were all issued in one second
    falls due evenly over so wide a span that its busiest second has 1.5 times the mean (a span of half of the longest
    wait, while the mean wait is three quarters of it). A narrower one would save calls and bring herds back.
    """
    if policy is None or lifetime is None:
        return None
    latest = max(lifetime - max(policy.margin, lifetime * policy.margin_share), lifetime / 2)
    return issued_at + latest * (1 - fraction(provider_id, generation) / 2)


def retry_at(now: datetime, *, provider_id: UUID, failures: int, after: timedelta | None = None) -> datetime:
    """When to try again after `failures` failed attempts in a row, this one included.

    Doubles from 30 s to 15 min, spread by a quarter either way; never sooner than `after`, which is what the
    provider itself asked for.
    """
    wait = min(_FIRST_WAIT * (1 << min(max(failures - 1, 0), 16)), _LONGEST_WAIT)
    at = now + wait * (0.75 + fraction(provider_id, failures) / 2)
    return at if after is None else max(at, now + after)


def show_again_at(now: datetime, *, provider_id: UUID, shown: int, after: timedelta | None = None) -> datetime:
    """When a token that was shown `shown` times without a known outcome may be shown again.

    Once soon; then a quarter of an hour apart, or up to a quarter more, and never sooner than `after`, which is what
    the answer asked for.
    """
    wait = RETRY_UNKNOWN_AFTER if shown < 2 else RETRY_AGAIN_AFTER * (1 + fraction(provider_id, shown) / 4)
    return now + (wait if after is None else max(wait, after))


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
