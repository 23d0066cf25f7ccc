"""Checks of an integration's calls: the error for each failure, which calls are repeated, and the budget of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
from structlog.testing import capture_logs

from worker.errors import AccessExpired, BadPayload, OutcomeUnknown, ProviderError, RateLimited, Transient
from worker.integrations.kit.base import Caller
from worker.integrations.kit.contract.subject import BASE_URL, Handler, Subject, every, require

_MAX_BYTES = 1 << 20


def _raising(error: Exception) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


def _answering(status: int, **content: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(status, **content)


FAILURES: dict[str, tuple[Handler, type[ProviderError]]] = {
    "over the limit": (_answering(429, json={"error_type": "RATE_LIMIT_EXCEEDED"}), RateLimited),
    "internal error": (_answering(500, text="<html>oops</html>"), Transient),
    "maintenance": (_answering(503, json={"message": "temporary problem"}), Transient),
    "unreachable": (_raising(httpx.ConnectError("refused")), Transient),
    "slow to connect": (_raising(httpx.ConnectTimeout("slow")), Transient),
    "reset in the middle": (_raising(httpx.ReadError("reset")), OutcomeUnknown),
    "silent": (_raising(httpx.ReadTimeout("silent")), OutcomeUnknown),
    "redirect": (_answering(302, headers={"location": "https://elsewhere.test/"}), BadPayload),
    "web page": (_answering(200, text="<html>Welcome</html>"), BadPayload),
    "cut short": (_answering(200, content=b'{"accounts": [{"account_'), BadPayload),
    "array of nothing": (_answering(200, content=b"null"), BadPayload),
    "too long": (_answering(200, content=b"[" + b" " * (2 * _MAX_BYTES)), BadPayload),
}
"""What may go wrong with a call that reads, and the error that must then be raised."""


def each_failure_of_http_becomes_the_same_error_everywhere(subject: Subject) -> None:
    """Every failure of HTTP raises the same error in each integration, and no error text contains a secret."""
    for name, (handler, expected) in FAILURES.items():
        trial = subject.connected(handler, max_bytes=_MAX_BYTES)
        with capture_logs() as logs:
            error = trial.fail(ProviderError)
        fits = type(error) is expected or (expected is Transient and isinstance(error, Transient))
        require(fits, f"{name}: must be {expected.__name__}, is {type(error).__name__} ({error.reason})")
        seen = f"{error!r} {error} {error.reason} {error.__cause__!r} {logs}"
        require(not [secret for secret in trial.secrets if secret in seen], f"{name}: a secret is in the error or log")


def failure_that_may_pass_is_tried_three_times(subject: Subject) -> None:
    """A failed call that reads is sent three times in all, as `api.read` does it."""
    trial = subject.connected(FAILURES["maintenance"][0])
    trial.fail(Transient)
    require(len(trial.requests) == 3, f"data must be asked for by `api.read`; sent {len(trial.requests)} times, not 3")


def redirect_is_not_followed(subject: Subject) -> None:
    """A redirect raises an error, and nothing is sent to another host."""
    trial = subject.connected(FAILURES["redirect"][0])
    trial.fail(BadPayload)
    hosts = {request.url.host for request in trial.requests}
    require(hosts == {httpx.URL(BASE_URL).host}, f"a redirect was followed to {', '.join(sorted(hosts))}")


class _Shut:
    async def admit(self, caller: Caller, *, endpoint: str, account_key: str | None) -> None:
        raise RateLimited("own_budget", retry_after=timedelta(seconds=9))


def budget_that_is_used_up_sends_nothing(subject: Subject) -> None:
    """When our own budget of calls is used up, nothing is sent."""
    trial = subject.connected(gate=_Shut())
    error = trial.fail(RateLimited)
    require(error.retry_after == timedelta(seconds=9), "the error of the used-up budget must come through unchanged")
    require(not trial.requests, "something was sent although our own budget is used up")


@dataclass
class _Open:
    asked: list[tuple[Caller, str]] = field(default_factory=list)

    async def admit(self, caller: Caller, *, endpoint: str, account_key: str | None) -> None:
        self.asked.append((caller, endpoint))


def budget_is_asked_before_each_request_on_behalf_of_the_caller(subject: Subject) -> None:
    """The gate is asked before each request, with the login for which the request is sent."""
    gate = _Open()
    trial = subject.connected(gate=gate)

    async def read() -> Caller:
        token = (await trial.link()).access_token
        trial.requests.clear()
        gate.asked.clear()
        caller = Caller(provider_id=uuid4(), manual=True)
        await every(trial.integration.pages(trial.request(token, caller=caller)))
        return caller

    caller = asyncio.run(read())
    require(trial.requests, "`pages` must ask the provider for something")
    require(len(gate.asked) == len(trial.requests), "every call must go through `self.api`, which asks the budget")
    require({found for found, _ in gate.asked} == {caller}, "every call must be made for `request.caller`")
    named = {quota.endpoint for quota in subject.integration.quotas if quota.endpoint}
    used = {endpoint for _, endpoint in gate.asked}
    require(not named or named & used, f"`quotas` name endpoints that no call uses: {', '.join(sorted(named))}")


def access_token_that_has_run_out_is_told_apart(subject: Subject) -> None:
    """An expired access token raises `AccessExpired`, so that a sync can refresh it and continue."""
    if subject.integration.refresh_policy is None:
        return
    trial = subject.connected()

    async def read() -> None:
        token = (await trial.link()).access_token
        trial.profile.expire_access(trial.login)
        await every(trial.integration.pages(trial.request(token)))

    try:
        asyncio.run(read())
    except AccessExpired:
        return
    except ProviderError as error:
        raise AssertionError(f"a token that has run out must be AccessExpired, it is {type(error).__name__}") from None
    raise AssertionError("an access token that has run out must raise AccessExpired: see `error_rules`")


CHECKS = (
    each_failure_of_http_becomes_the_same_error_everywhere,
    failure_that_may_pass_is_tried_three_times,
    redirect_is_not_followed,
    budget_that_is_used_up_sends_nothing,
    budget_is_asked_before_each_request_on_behalf_of_the_caller,
    access_token_that_has_run_out_is_told_apart,
)
