"""Heeds limits that providers state in their answers: how many calls are left, and when there will be more.

The budget of our own (`Quota`) usually keeps us below such a limit. It may still be reached, because other programs
call with the same credential, or because the provider has lowered it.
"""

from __future__ import annotations

from datetime import timedelta

from worker.errors import RateLimited, Scope
from worker.integrations.kit.base import SyncRequest
from worker.integrations.kit.calls import Calls
from worker.integrations.kit.limits import Limit
from worker.process.clocks import elapsed


class Throttled:
    """The calls of one reading; none is made while the provider has said that no more are allowed.

    Args:
        integration: makes the calls; `limits` are those that its provider states.
        request: the request of the sync.
        name: of the endpoints, for quotas and logs.
    """

    def __init__(self, integration: Calls, request: SyncRequest, name: str) -> None:
        self._integration = integration
        self._request = request
        self._name = name
        self._limits = integration.limits
        self._until: dict[tuple[Limit, str | None], float] = {}

    async def get(self, path: str, account_key: str | None = None, **params: str) -> bytes:
        """Reads with the login's credentials; returns the body of the answer.

        Args:
            path: below the base URL; `{}` in it stands for the account.
            account_key: the account that the call is about.
            params: the query parameters.

        Raises:
            RateLimited: `limit_reached`: no more calls are allowed now; nothing was sent.
            ProviderError: the error that the answer stands for.
        """
        self._require_room(account_key)
        answer = await self._integration.api.read(
            self._integration.api.endpoint(self._name, "GET", path, *filter(None, [account_key])),
            self._request.caller,
            check=self._integration.check,
            headers=self._integration.credentials(self._request.access_token),
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
