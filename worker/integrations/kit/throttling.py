"""Heeds limits that providers state in their answers: how many calls are left, and when there will be more.

The budget of our own (`Quota`) usually keeps us below such a limit. It may still be reached, because other programs
call with the same credential, or because the provider has lowered it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from worker.errors import ProviderError, RateLimited, Scope
from worker.integrations.kit.base import SyncRequest
from worker.integrations.kit.http import read_retry_after
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.transport import Answer
from worker.process.clocks import elapsed

_MOST_SECONDS = 86_400
_UNSTATED = 60
_SECONDS = re.compile(r"\d{1,6}(?:\.\d{1,9})?", re.ASCII)
_AVAILABLE_IN = re.compile(r"available in (\d{1,6}) second", re.ASCII)  # the words of Django REST framework


class Limit(NamedTuple):
    """One limit.

    Attributes:
        prefix: of its headers, in lower case; `remaining` (calls) and `reset` (seconds) follow.
        scope: what it counts: `Scope.APP` for all calls, `Scope.ACCOUNT` for those about one account.
    """

    prefix: str
    scope: Scope

    def wait(self, headers: Mapping[str, str]) -> timedelta | None:
        """How long no more calls are allowed; None while some are left, or if the provider says nothing of it."""
        if headers.get(f"{self.prefix}remaining", "").strip() != "0":
            return None
        given = headers.get(f"{self.prefix}reset", "").strip()
        seconds = float(given) if _SECONDS.fullmatch(given) else _UNSTATED
        return timedelta(seconds=min(seconds, _MOST_SECONDS))


class Throttled:
    """The calls of one reading; none is made while the provider has said that no more are allowed.

    Args:
        integration: makes the calls.
        request: the request of the sync.
        name: of the endpoints, for quotas and logs.
        limits: the limits that the provider states, the widest first.
    """

    def __init__(self, integration: Integration, request: SyncRequest, name: str, limits: Sequence[Limit]) -> None:
        self._integration = integration
        self._request = request
        self._name = name
        self._limits = limits
        self._until: dict[tuple[Limit, str | None], float] = {}

    async def get(self, path: str, account_key: str | None = None, **params: str) -> bytes:
        """Reads with the access token as `Bearer`; returns the body of the answer.

        Raises:
            RateLimited: `limit_reached`: no more calls are allowed now; nothing was sent.
            ProviderError: the error that the answer stands for.
        """
        self._require_room(account_key)
        answer = await self._integration.api.read(
            self._integration.api.endpoint(self._name, "GET", path),
            self._request.caller,
            check=self._integration.check,
            headers={"authorization": f"Bearer {self._request.access_token}"},
            params=params,
            account_key=account_key,
        )
        for limit in self._limits:
            if wait := limit.wait(answer.headers):
                self._until[limit, _counted(limit, account_key)] = elapsed() + wait.total_seconds()
        return answer.body

    def _require_room(self, account_key: str | None) -> None:
        for limit in self._limits:
            left = self._until.get((limit, _counted(limit, account_key)), 0.0) - elapsed()
            if left > 0:
                raise RateLimited("limit_reached", scope=limit.scope, retry_after=timedelta(seconds=left))


def _counted(limit: Limit, account_key: str | None) -> str | None:
    return account_key if limit.scope is Scope.ACCOUNT else None


def with_wait(error: ProviderError, limits: Sequence[Limit], answer: Answer, text: str) -> ProviderError:
    """The error, if it is `RateLimited` with the limit that was reached and the longest wait that the answer names.

    Args:
        error: the error that the answer stands for.
        limits: the limits that the provider states, the widest first.
        answer: the answer.
        text: the provider's own words, which may name seconds.
    """
    if not isinstance(error, RateLimited):
        return error
    reached = [(limit.scope, wait) for limit in limits if (wait := limit.wait(answer.headers)) is not None]
    named = _AVAILABLE_IN.search(text)
    waits = [wait for _, wait in reached]
    waits += [timedelta(seconds=int(named[1]))] if named and not reached else []
    waits += [wait] if (wait := read_retry_after(answer.headers)) is not None else []
    error.retry_after = max(waits, default=None)
    if reached:
        error.scope = reached[0][0]
    return error
