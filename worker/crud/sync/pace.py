"""How often a login is synced, and whether a hook has asked for another sync."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a login is synced.

    Attributes:
        own_interval: seconds between its syncs; None means the setting `SYNC_INTERVAL`.
        hooked_until: until when the next hook is waited for: twice the usual gap after the last one. None if no hooks
            arrive, or if the login has an interval of its own, which then counts.
    """

    own_interval: int | None = None
    hooked_until: datetime | None = None


_GAPS_WAITED = 2


def pace_of(own: int | None, hooked_at: datetime | None, gap: int | None) -> Pace:
    """The pace that follows from a provider's own interval, its last hook and the usual gap between two hooks."""
    if own is not None or hooked_at is None or gap is None:
        return Pace(own)
    return Pace(None, hooked_at + timedelta(seconds=_GAPS_WAITED * gap))


DUE_AGAIN = """
    CASE WHEN p.hook_sync_at > ended.began THEN least(ended.due_at, greatest(p.hook_sync_at, %(now)s))
    ELSE ended.due_at END
"""
"""When the provider `p` is due after the run `ended`: earlier if a hook has asked for a sync after the run began."""
