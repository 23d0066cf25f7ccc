"""What every integration must do, whichever provider it speaks to. A new one needs a `Script` in `scripts.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from tests.unit.integrations.scripts import (
    ACCESS_TOKEN,
    BASE_URL,
    NOW,
    REFRESH_TOKEN,
    SCRIPTS,
    SECRET_WORD,
    Provider,
    all_pages,
    missing_scripts,
    provider,
    sync_request,
)
from worker.errors import (
    BadPayload,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Transient,
    Unsupported,
)
from worker.integrations.kit.base import Caller, Page, Quota, RefreshPolicy
from worker.integrations.kit.link_kinds import LinkKind
from worker.integrations.registry import REGISTRY
from worker.models.records import TransactionRecord
from worker.models.vocabulary import (
    AccountStatus,
    AccountType,
    SecurityType,
    TransactionStatus,
    TransactionType,
)

FORM = {"code": "code@", "public_token": "public-1"}
EVERY = pytest.mark.parametrize("key", sorted(SCRIPTS))


def raising(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


def answering(status: int, **content: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(status, **content)


FAILURES: dict[str, tuple[Callable[[httpx.Request], httpx.Response], type[ProviderError]]] = {
    "over the limit": (answering(429, json={"error_type": "RATE_LIMIT_EXCEEDED"}), RateLimited),
    "internal error": (answering(500, text="<html>oops</html>"), Transient),
    "maintenance": (answering(503, json={"message": "temporary problem"}), Transient),
    "unreachable": (raising(httpx.ConnectError("refused")), Transient),
    "slow to connect": (raising(httpx.ConnectTimeout("slow")), Transient),
    "reset in the middle": (raising(httpx.ReadError("reset")), OutcomeUnknown),
    "silent": (raising(httpx.ReadTimeout("silent")), OutcomeUnknown),
    "redirect": (answering(302, headers={"location": "https://elsewhere.test/"}), BadPayload),
    "web page": (answering(200, text="<html>Welcome</html>"), BadPayload),
    "cut short": (answering(200, content=b'{"accounts": [{"account_'), BadPayload),
    "array of nothing": (answering(200, content=b"null"), BadPayload),
    "too long": (answering(200, content=b"[" + b" " * (2 << 20)), BadPayload),
}


async def first_error(subject: Provider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await all_pages(subject.integration.pages(sync_request()))
    return caught.value


def test_every_registered_integration_has_a_script() -> None:
    assert not missing_scripts(), missing_scripts()


@EVERY
def test_integration_says_what_it_is(key: str) -> None:
    integration = REGISTRY[key]

    assert integration.key == key, "`key` must equal its name in REGISTRY"
    assert integration.name, "`name` is shown to people"
    assert isinstance(integration.link_kind, LinkKind)
    assert integration.refresh_policy is None or isinstance(integration.refresh_policy, RefreshPolicy)
    assert all(
        isinstance(quota, Quota) and quota.scope in ("app", "provider", "account") for quota in integration.quotas
    )
    assert integration.mapping_version >= 1, "`mapping_version` begins at 1 and grows whenever mapping changes"
    assert integration.error_rules, "`error_rules` is the provider's table of errors"
    assert all(issubclass(rule.error, ProviderError) for rule in integration.error_rules)


@EVERY
@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_data_call_turns_each_failure_of_http_into_the_same_error(key: str, failure: str) -> None:
    handler, expected = FAILURES[failure]
    subject = provider(key, handler)

    error = asyncio.run(first_error(subject))

    assert type(error) is expected or (expected is Transient and isinstance(error, Transient)), failure


@EVERY
@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_no_failure_shows_a_secret(key: str, failure: str) -> None:
    subject = provider(key, FAILURES[failure][0])

    with capture_logs() as logs:
        error = asyncio.run(first_error(subject))

    assert SECRET_WORD not in f"{error!r} {error} {error.reason} {error.__cause__!r} {logs}"
    assert SECRET_WORD not in repr(sync_request())


@EVERY
def test_transient_data_failure_is_tried_three_times(key: str) -> None:
    subject = provider(key, FAILURES["maintenance"][0])

    asyncio.run(first_error(subject))

    assert len(subject.requests) == 3


@EVERY
def test_redirect_is_not_followed(key: str) -> None:
    subject = provider(key, FAILURES["redirect"][0])

    asyncio.run(first_error(subject))

    assert subject.hosts() == {httpx.URL(BASE_URL).host}
    assert len(subject.requests) == 1


@EVERY
def test_budget_that_is_used_up_sends_nothing(key: str) -> None:
    class Shut:
        async def admit(self, caller: Caller, *, endpoint: str, account_key: str | None) -> None:
            raise RateLimited("own_budget", retry_after=timedelta(seconds=9))

    subject = provider(key, gate=Shut())

    error = asyncio.run(first_error(subject))

    assert isinstance(error, RateLimited)
    assert error.retry_after == timedelta(seconds=9)
    assert subject.requests == []


@EVERY
def test_budget_is_asked_before_each_request_on_behalf_of_the_caller(key: str) -> None:
    asked: list[tuple[Caller, str]] = []

    class Open:
        async def admit(self, caller: Caller, *, endpoint: str, account_key: str | None) -> None:
            asked.append((caller, endpoint))

    subject = provider(key, gate=Open())
    caller = Caller(provider_id=uuid4(), manual=True)

    asyncio.run(all_pages(subject.integration.pages(sync_request(caller=caller))))

    assert len(asked) == len(subject.requests) > 0
    assert {found for found, _ in asked} == {caller}
    named = {quota.endpoint for quota in REGISTRY[key].quotas if quota.endpoint}
    assert named & {endpoint for _, endpoint in asked}, "quotas name endpoints that no call uses"


def rows_of(page: Page) -> dict[tuple[str, str], TransactionRecord]:
    mapper = page.map_transaction
    assert mapper is not None or not page.transactions
    return {(row.account_key, row.key): mapper(row) for row in page.transactions} if mapper else {}


async def read_in_one_go(key: str) -> dict[tuple[str, str], TransactionRecord]:
    found: dict[tuple[str, str], TransactionRecord] = {}
    for page in await all_pages(provider(key).integration.pages(sync_request())):
        found |= rows_of(page)
    return found


async def read_breaking_off_after_each_page(key: str) -> tuple[dict[tuple[str, str], TransactionRecord], int]:
    found: dict[tuple[str, str], TransactionRecord] = {}
    cursors: dict[str, str] = {}
    breaks = 0
    while True:
        moved = False
        async with aclosing(provider(key).integration.pages(sync_request(dict(cursors)))) as pages:
            async for page in pages:
                found |= rows_of(page)
                if page.cursor is not None and cursors.get(page.feed) != page.cursor:
                    cursors[page.feed] = page.cursor
                    moved = True
                    break
        if not moved:
            return found, breaks
        breaks += 1
        assert breaks < 200, "the cursors do not advance"


@EVERY
def test_sync_broken_off_after_each_page_goes_on_from_cursors_alone(key: str) -> None:
    whole = asyncio.run(read_in_one_go(key))

    pieced, breaks = asyncio.run(read_breaking_off_after_each_page(key))

    assert pieced == whole
    assert breaks > 2, "the script should serve several pages"


@EVERY
def test_everything_is_mapped_into_the_closed_vocabulary(key: str) -> None:
    pages = asyncio.run(all_pages(provider(key).integration.pages(sync_request())))

    accounts = [account for page in pages for account in page.accounts]
    assert accounts
    for account in accounts:
        assert isinstance(account.type, AccountType)
        assert isinstance(account.status, AccountStatus)
        assert len(account.mask or "") <= 4
    keys = {account.account_key for account in accounts}
    assert all(balance.account_key in keys for page in pages for balance in page.balances)
    for holding in (holding for page in pages for holding in page.holdings):
        assert holding.account_key in keys
        assert isinstance(holding.security.type, SecurityType)
        assert holding.quantity.is_finite()
    rows = [row for page in pages for row in rows_of(page).values()]
    assert rows
    for row in rows:
        assert isinstance(row.type, TransactionType)
        assert isinstance(row.status, TransactionStatus)
        assert isinstance(row.amount, Decimal)
        assert row.amount.is_finite()
        assert row.occurred_at is None or row.occurred_at.tzinfo is not None
    assert not [reject for page in pages for reject in page.rejects]
    assert not [problem for page in pages for problem in page.problems]


@EVERY
def test_no_full_account_number_leaves_the_integration(key: str) -> None:
    pages = asyncio.run(all_pages(provider(key).integration.pages(sync_request())))

    kept = [(page.accounts, page.balances, page.holdings, page.cursor, page.problems, rows_of(page)) for page in pages]
    assert "12345678" not in repr(kept)
    assert "87654321" not in repr(kept)


@EVERY
def test_exchange_gives_a_token_that_its_repr_does_not_show(key: str) -> None:
    answer = asyncio.run(provider(key).integration.exchange(Caller(), FORM, now=NOW))

    assert answer.access_token == "new-" + ACCESS_TOKEN
    assert SECRET_WORD not in repr(answer)
    assert answer.grant_expires_at is not None
    assert answer.grant_expires_at > NOW


@EVERY
def test_refresh_is_there_exactly_when_the_policy_says_so(key: str) -> None:
    subject = provider(key)

    async def refresh() -> Any:
        return await subject.integration.refresh(Caller(), REFRESH_TOKEN)

    if REGISTRY[key].refresh_policy is None:
        with pytest.raises(Unsupported):
            asyncio.run(refresh())
        assert subject.requests == []
    else:
        answer = asyncio.run(refresh())
        assert answer.grant_expires_at is None, "a refresh never moves the end of the grant"
        assert answer.lifetime is not None


@EVERY
@pytest.mark.parametrize("failure", ["maintenance", "silent", "unreachable"])
def test_token_call_is_never_repeated(key: str, failure: str) -> None:
    subject = provider(key, FAILURES[failure][0])

    with pytest.raises(Transient):
        asyncio.run(subject.integration.exchange(Caller(), FORM, now=NOW))

    assert len(subject.requests) == 1


@EVERY
def test_authorize_url_is_there_exactly_for_oauth(key: str) -> None:
    integration = provider(key).integration

    if integration.link_kind.redirects:
        url = httpx.URL(integration.authorize_url("state-1"))
        assert url.params["state"] == "state-1"
        assert SECRET_WORD not in str(url)
    else:
        with pytest.raises(Unsupported):
            integration.authorize_url("state-1")


@EVERY
def test_closing_closes_the_connections(key: str) -> None:
    asyncio.run(provider(key).integration.aclose())
