"""An integration that answers from a script and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from tests.support.providers import REFRESHED_KEY
from worker.errors import Unsupported
from worker.integrations.kit.base import Caller, Page, RefreshPolicy, SyncRequest, TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import OAUTH, LinkKind

Step = TokenAnswer | BaseException | Callable[[str], TokenAnswer | Awaitable[TokenAnswer]]


def answer(number: int = 2, **values: Any) -> TokenAnswer:
    """Tokens of one rotation."""
    defaults: dict[str, Any] = {
        "access_token": f"access-{number}",
        "refresh_token": f"refresh-{number}",
        "lifetime": timedelta(minutes=30),
    }
    return TokenAnswer(**defaults | values)


class ScriptedIntegration(Integration):
    """Takes one step of `script` for each call; rotates by itself once that is used up.

    Attributes:
        presented: refresh tokens in the order in which they came.
        exchanged, revoked: codes and access tokens likewise.
        forms, challenges: all that exchanges and consents were given.
        most_in_flight: calls at the same time.
    """

    key: ClassVar[str] = REFRESHED_KEY
    name: ClassVar[str] = "Scripted"
    link_kind: LinkKind = OAUTH  # type: ignore[misc]
    refresh_policy: RefreshPolicy | None = RefreshPolicy(default_lifetime=timedelta(minutes=30))  # type: ignore[misc]
    redirect_uri = "https://127.0.0.1"

    def __init__(self, *script: Step) -> None:
        self.script: list[Step] = list(script)
        self.presented: list[str] = []
        self.callers: list[Caller] = []
        self.exchanged: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.challenges: list[str | None] = []
        self.revoked: list[tuple[str, str | None]] = []
        self.in_flight = self.most_in_flight = 0

    def authorize_url(self, state: str, challenge: str | None = None) -> str:
        self.challenges.append(challenge)
        return f"https://consent.example/?state={state}"

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        self.forms.append(dict(form))
        code = next(iter(form.values()), "")
        self.exchanged.append(code)
        return await self._next(code)

    async def refresh(self, caller: Caller, refresh_token: str) -> TokenAnswer:
        self.presented.append(refresh_token)
        self.callers.append(caller)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._next(refresh_token)
        finally:
            self.in_flight -= 1

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        self.revoked.append((access_token, refresh_token))
        if self.script and isinstance(self.script[0], BaseException):
            raise self.script.pop(0)  # type: ignore[misc]
        return True

    def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        raise Unsupported("pages")

    async def aclose(self) -> None:
        return None

    async def _next(self, token: str) -> TokenAnswer:
        await asyncio.sleep(0)
        step = self.script.pop(0) if self.script else self.rotate
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, TokenAnswer):
            return step
        given = step(token)
        return given if isinstance(given, TokenAnswer) else await given

    @staticmethod
    def rotate(token: str) -> TokenAnswer:
        """`refresh-1` → `refresh-2`; the name before the number is kept."""
        name, _, number = token.rpartition("-")
        following = int(number) + 1 if number.isdigit() else 2
        return answer(following, refresh_token=f"{name or 'refresh'}-{following}")
