"""How an integration calls its provider: who calls, what an unwanted answer means, what one account's trouble stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import msgspec

from worker.errors import (
    AccountGone,
    BadPayload,
    BadRequest,
    Forbidden,
    InstitutionDown,
    NotReady,
    ProviderError,
    RateLimited,
    Scope,
    Transient,
    Unsupported,
)
from worker.integrations.kit.base import Caller, Page, SyncRequest
from worker.integrations.kit.http import Api, Endpoint, Params, read_retry_after
from worker.integrations.kit.limits import Limit, with_wait
from worker.integrations.kit.taxonomy import Rule, classify
from worker.integrations.kit.transport import Answer

TROUBLE_OF_AN_ACCOUNT = (Transient, InstitutionDown, BadRequest, BadPayload, AccountGone, Forbidden, NotReady)
"""Errors that, met with one account, are a problem of this account alone."""
_TROUBLE_OF_A_PART = (Transient, BadRequest, BadPayload, NotReady, Unsupported)


class Calls:
    """The part of an integration that makes calls.

    Attributes:
        error_rules: what the provider's errors mean; the first rule that matches counts.
        error_code: members of an error's JSON that may have the provider's code for it; the first that has one counts.
        error_text: the same for the provider's description of it.
        limits: limits that the provider states in headers of its answers, the widest first.
        harmless: reasons of `Unsupported` that are normal for most logins and therefore no problem of a run.
    """

    error_rules: ClassVar[tuple[Rule, ...]] = ()
    error_code: ClassVar[tuple[str, ...]] = ("error",)
    error_text: ClassVar[tuple[str, ...]] = ("error_description", "message")
    limits: ClassVar[tuple[Limit, ...]] = ()
    harmless: ClassVar[frozenset[str]] = frozenset()
    api: Api

    def credentials(self, access_token: str) -> dict[str, str]:
        """The headers that show for whom a call is made; by default the access token as `Bearer`."""
        return {"authorization": f"Bearer {access_token}"}

    async def get(
        self,
        request: SyncRequest,
        endpoint: Endpoint,
        params: Params | None = None,
        *,
        account_key: str | None = None,
        rules: tuple[Rule, ...] | None = None,
    ) -> bytes:
        """Calls an endpoint with the login's `credentials` and returns the body of the answer.

        Args:
            request: the request of the sync.
            endpoint: the endpoint to call.
            params: the query parameters.
            account_key: the account that the call is about, for quotas by account.
            rules: used instead of `error_rules`.
        """
        answer = await self.api.read(
            endpoint,
            request.caller,
            check=lambda answer: self.check(answer, rules),
            headers=self.credentials(request.access_token),
            params=params,
            account_key=account_key,
        )
        return answer.body

    async def post(
        self, caller: Caller, endpoint: Endpoint, headers: Mapping[str, str], asked: Mapping[str, Any]
    ) -> Answer:
        """Sends JSON once, for calls that change something at the provider. Raises `ProviderError`, as `Api.send`."""
        sent = {**headers, "content-type": "application/json"}
        answer = await self.api.send(endpoint, caller, headers=sent, content=msgspec.json.encode(asked))
        self.check(answer)
        return answer

    def check(self, answer: Answer, rules: tuple[Rule, ...] | None = None) -> None:
        """Raises the error that an answer other than 200 stands for, by `rules` or else by `error_rules`."""
        if answer.status != 200:
            raise self.error_of(answer, self.error_rules if rules is None else rules)

    def error_of(self, answer: Answer, rules: tuple[Rule, ...]) -> ProviderError:
        """The error for an unwanted answer, by `error_code` and `error_text` of its JSON and by `limits`."""
        try:
            given = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            given = None
        fields = given if isinstance(given, dict) else {}
        text = _first(fields, self.error_text) or ""
        error = classify(
            rules,
            status=answer.status,
            code=_first(fields, self.error_code, but=answer.status),
            text=text,
            retry_after=read_retry_after(answer.headers),
        )
        return with_wait(error, self.limits, answer, text)

    async def part(
        self,
        pages: AsyncIterator[Page],
        *,
        account_key: str | None = None,
        ready_again: timedelta | None = None,
        waits: list[RateLimited] | None = None,
    ) -> AsyncIterator[Page]:
        """The pages of one account or product. If it fails, the run notes a problem and continues with the others.

        Args:
            pages: its pages.
            account_key: the account, if the part is of one. Then every error with `Scope.ACCOUNT` is its problem, too.
            ready_again: when to ask again for a part that is `NotReady`, if the provider names no time.
            waits: gets the account's errors that its calls are used up, in place of the run; for callers that raise
                one of them when the other accounts are read.
        """
        passing = _TROUBLE_OF_A_PART if account_key is None else TROUBLE_OF_AN_ACCOUNT
        try:
            async for page in pages:
                yield page
        except ProviderError as error:
            if not (isinstance(error, passing) or (account_key is not None and error.scope is Scope.ACCOUNT)):
                raise
            if account_key is not None:
                error.scope, error.account_key = Scope.ACCOUNT, account_key
            if isinstance(error, NotReady):
                error.retry_after = error.retry_after or ready_again
            if waits is not None and isinstance(error, RateLimited):
                waits.append(error)
            elif not (isinstance(error, Unsupported) and error.reason in self.harmless):
                yield Page(problems=(error,))

    async def parts_of_accounts(
        self,
        request: SyncRequest,
        parts: Mapping[str, Iterable[AsyncIterator[Page]]],
        *,
        day_ends_in: timedelta | None = None,
    ) -> AsyncIterator[Page]:
        """The pages of all accounts, one account after the other; those that an earlier run has read are left out.

        Args:
            request: the request of the sync.
            parts: the parts of each account, by its key; see `part`.
            day_ends_in: for providers that count calls by account and day: how long it takes until the next day begins.
                An account whose calls are used up does not stop the others then.

        Raises:
            RateLimited: the calls of some account are used up; the login waits, at the end of the reading.
        """
        waits = list[RateLimited]()
        for key, of_account in parts.items():
            for one in of_account if f"account:{key}" not in request.done else ():
                async for page in self.part(one, account_key=key, waits=None if day_ends_in is None else waits):
                    yield page
        if waits and day_ends_in is not None:
            longest = max(error.retry_after or day_ends_in for error in waits)
            raise RateLimited(waits[0].reason, scope=Scope.PROVIDER, retry_after=longest)


def _first(fields: Mapping[str, object], names: tuple[str, ...], but: int | None = None) -> str | None:
    """The first member that is a text or a whole number; a number that repeats the status says nothing."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value not in ("", but):
            return str(value)
    return None
