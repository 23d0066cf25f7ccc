"""What the integrations read equals what the provider holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.integrations.conftest import Connect
from tests.integration.integrations.reading_along import BACKFILL, Kept
from tests.support.sandbox import SandboxAdmin
from worker.errors import AccessExpired, NotReady, ReauthRequired
from worker.integrations.kit.base import Caller, SyncRequest
from worker.integrations.kit.oauth2 import parse_callback

pytestmark = pytest.mark.deep

BOTH = pytest.mark.parametrize("key", ["schwab", "plaid"])
ALL = pytest.mark.parametrize("key", ["schwab", "plaid", "simplefin", "snaptrade", "enable_banking"])


def run(connect: Connect, key: str, body: Callable[[Any], Awaitable[Any]], **more: Any) -> Any:
    """Runs `body` with an open integration and closes it."""

    async def inner() -> Any:
        integration = getattr(connect, key)(**more)
        try:
            return await body(integration)
        finally:
            await integration.aclose()

    return asyncio.run(inner())


def minted(provider: SandboxAdmin, key: str) -> tuple[str, str]:
    login = provider.logins(key)[0]
    return login, provider.mint(login)[0].access_token


@ALL
def test_first_sync_equals_the_books(provider: SandboxAdmin, connect: Connect, key: str) -> None:
    login, token = minted(provider, key)

    kept = run(connect, key, lambda integration: Kept().sync(integration, token))

    assert kept.differences(provider.books(login)) == []
    assert (kept.rejects, kept.problems) == ([], [])
    assert len(kept.transactions) > 100


@ALL
def test_books_that_move_are_followed(provider: SandboxAdmin, connect: Connect, key: str) -> None:
    login, token = minted(provider, key)

    async def syncs(integration: Any) -> Kept:
        kept = await Kept().sync(integration, token)
        for _ in range(4):
            provider.advance(5, [login])
            await kept.sync(integration, token)
        return kept

    kept = run(connect, key, syncs)

    assert kept.differences(provider.books(login)) == []
    assert (kept.rejects, kept.problems) == ([], [])


@ALL
def test_sync_broken_off_after_each_page_ends_with_the_same_rows(
    provider: SandboxAdmin, connect: Connect, key: str
) -> None:
    login, token = minted(provider, key)

    async def pieces(integration: Any) -> Kept:
        kept = Kept()
        for _ in range(200):
            before = dict(kept.cursors)
            pages = integration.pages(_request(token, kept.cursors))
            async for page in pages:
                kept.apply(page)
                if kept.cursors != before:
                    break
            await pages.aclose()
            if kept.cursors == before:
                return kept
        raise AssertionError("the cursors do not advance")

    kept = run(connect, key, pieces)

    assert kept.differences(provider.books(login)) == []


def _request(token: str, cursors: dict[str, str]) -> SyncRequest:
    return SyncRequest(
        caller=Caller(), access_token=token, cursors=dict(cursors), now=datetime.now(UTC), backfill=BACKFILL
    )


def test_schwab_login_is_linked_refreshed_and_read(provider: SandboxAdmin, connect: Connect) -> None:
    login = provider.logins("schwab")[0]
    url = provider.link(login, state="state-1")["callback_url"]
    now = datetime.now(UTC)

    async def link(integration: Any) -> Kept:
        callback = parse_callback(url, integration.redirect_uri)
        assert callback.state == "state-1"
        first = await integration.exchange(Caller(), {"code": callback.code}, now=now)
        assert first.grant_expires_at == now + timedelta(days=7)
        second = await integration.refresh(Caller(), first.refresh_token)
        assert second.refresh_token not in (None, first.refresh_token)
        with pytest.raises(ReauthRequired):
            await integration.exchange(Caller(), {"code": callback.code}, now=now)
        return await Kept().sync(integration, second.access_token)

    assert run(connect, "schwab", link).differences(provider.books(login)) == []
    assert provider.overlapping_refreshes() == []


def test_plaid_item_is_linked_read_and_removed(provider: SandboxAdmin, connect: Connect) -> None:
    login = provider.logins("plaid")[0]

    async def link(integration: Any) -> Kept:
        answer = await integration.exchange(Caller(), provider.link(login), now=datetime.now(UTC))
        assert answer.external_id
        kept = await Kept().sync(integration, answer.access_token)
        assert await integration.revoke(Caller(), access_token=answer.access_token, refresh_token=None)
        with pytest.raises(ReauthRequired):
            await kept.sync(integration, answer.access_token)
        return kept

    assert run(connect, "plaid", link).differences(provider.books(login)) == []


@pytest.mark.parametrize("shape", ["unsupported_token_type", "invalid_grant", "invalid_client"])
def test_schwab_grant_that_was_revoked_is_dead_in_each_shape(
    provider: SandboxAdmin, connect: Connect, shape: str
) -> None:
    login = provider.logins("schwab")[0]
    grant = provider.mint(login)[0]
    provider.set_policy("schwab", dead_grant=shape)
    provider.revoke(login)

    async def refresh(integration: Any) -> None:
        with pytest.raises(ReauthRequired):
            await integration.refresh(Caller(), grant.refresh_token)

    run(connect, "schwab", refresh)


def test_schwab_access_that_ran_out_stops_the_sync(provider: SandboxAdmin, connect: Connect) -> None:
    login, token = minted(provider, "schwab")
    provider.expire_access_tokens(login)

    async def sync(integration: Any) -> None:
        with pytest.raises(AccessExpired):
            await Kept().sync(integration, token)

    run(connect, "schwab", sync)


def test_plaid_restart_in_the_middle_of_the_pages_ends_with_the_books(provider: SandboxAdmin, connect: Connect) -> None:
    (login,) = provider.create_logins("plaid", transactions=1800)
    token = provider.mint(login)[0].access_token
    provider.demand_restarts(login, 3)

    kept = run(connect, "plaid", lambda integration: Kept().sync(integration, token))

    assert kept.differences(provider.books(login)) == []


def test_plaid_data_that_is_not_ready_comes_later(provider: SandboxAdmin, connect: Connect) -> None:
    login, token = minted(provider, "plaid")
    provider.hold_back_data(login, 2)

    async def twice(integration: Any) -> Kept:
        kept = await Kept().sync(integration, token)
        assert {type(problem) for problem in kept.problems} == {NotReady}
        return await kept.sync(integration, token)

    assert run(connect, "plaid", twice).differences(provider.books(login)) == []


def test_plaid_login_that_needs_its_owner_says_so(provider: SandboxAdmin, connect: Connect) -> None:
    login, token = minted(provider, "plaid")
    provider.break_login(login)

    async def sync(integration: Any) -> None:
        with pytest.raises(ReauthRequired, match="ITEM_LOGIN_REQUIRED"):
            await Kept().sync(integration, token)

    run(connect, "plaid", sync)


def test_schwab_windows_of_more_than_three_thousand_rows_are_read_whole(
    provider: SandboxAdmin, connect: Connect
) -> None:
    (login,) = provider.create_logins("schwab", accounts=1, transactions=4000, history_days=20)
    token = provider.mint(login)[0].access_token

    kept = run(connect, "schwab", lambda integration: Kept().sync(integration, token))

    assert kept.differences(provider.books(login)) == []
    assert kept.problems == []


@BOTH
def test_one_bad_record_is_left_out_and_the_rest_equals_the_books(
    provider: SandboxAdmin, connect: Connect, key: str
) -> None:
    login, token = minted(provider, key)
    account = provider.books(login)["accounts"][0]["provider_account_id"]
    record = '{"transaction_id":null,"activityId":null,"amount":NaN,"netAmount":NaN}'
    provider.serve_verbatim(login, record, account=account)

    kept = run(connect, key, lambda integration: Kept().sync(integration, token))

    assert kept.differences(provider.books(login)) == []
    assert {reject.kind for reject in kept.rejects} == {"transaction"}
