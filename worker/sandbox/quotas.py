"""Quotas of the stand-ins: limits of requests in sliding windows, per application or per login."""

from __future__ import annotations

from collections import defaultdict, deque
from fnmatch import fnmatchcase
from typing import Literal

import msgspec


class Quota(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """At most `limit` requests in any `seconds`, for the whole application or for each login."""

    limit: int
    seconds: float
    profile: str = "*"
    path: str = "*"
    scope: Literal["app", "login"] = "app"


class Quotas:
    """The active quotas, with the requests counted so far."""

    def __init__(self) -> None:
        self._quotas: list[Quota] = []
        self._seen: defaultdict[tuple[int, str], deque[float]] = defaultdict(deque)

    def __bool__(self) -> bool:
        return bool(self._quotas)

    def set(self, quotas: list[Quota]) -> None:
        """Replaces all quotas by these; counting starts at zero."""
        self._quotas = quotas
        self._seen.clear()

    def exceeded(self, profile: str, path: str, login: str | None, now: float) -> float | None:
        """Counts the request and returns None, or, if it is refused, returns the seconds until it would be allowed."""
        charged: list[deque[float]] = []
        for index, quota in enumerate(self._quotas):
            if quota.profile not in ("*", profile) or not fnmatchcase(path, quota.path):
                continue
            seen = self._seen[index, (login or "") if quota.scope == "login" else ""]
            while seen and seen[0] <= now - quota.seconds:
                seen.popleft()
            if len(seen) >= quota.limit:
                return seen[0] + quota.seconds - now if seen else quota.seconds
            charged.append(seen)
        for seen in charged:
            seen.append(now)
        return None
