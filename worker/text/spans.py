"""Times told from now."""

from __future__ import annotations

from datetime import datetime

_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


def when(moment: datetime, now: datetime) -> str:
    """`in 5 minutes` or `3 hours ago`."""
    seconds = int(abs((moment - now).total_seconds()))
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= 2 * size or size == 1)
    words = f"{seconds // size} {unit}"
    return f"in {words}" if moment > now else f"{words} ago"
