"""Plaid's own client, unchanged, against the sandbox: every answer must parse into the official models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import plaid
import pytest
from plaid.api.plaid_api import PlaidApi
from plaid.model.accounts_balance_get_request import AccountsBalanceGetRequest
from plaid.model.accounts_get_request import AccountsGetRequest
from plaid.model.country_code import CountryCode
from plaid.model.institutions_get_by_id_request import InstitutionsGetByIdRequest
from plaid.model.investments_holdings_get_request import InvestmentsHoldingsGetRequest
from plaid.model.investments_transactions_get_request import InvestmentsTransactionsGetRequest
from plaid.model.investments_transactions_get_request_options import InvestmentsTransactionsGetRequestOptions
from plaid.model.item_access_token_invalidate_request import ItemAccessTokenInvalidateRequest
from plaid.model.item_get_request import ItemGetRequest
from plaid.model.item_public_token_exchange_request import ItemPublicTokenExchangeRequest
from plaid.model.item_remove_request import ItemRemoveRequest
from plaid.model.liabilities_get_request import LiabilitiesGetRequest
from plaid.model.link_token_create_request import LinkTokenCreateRequest
from plaid.model.link_token_create_request_user import LinkTokenCreateRequestUser
from plaid.model.plaid_error import PlaidError
from plaid.model.products import Products
from plaid.model.sandbox_item_reset_login_request import SandboxItemResetLoginRequest
from plaid.model.sandbox_public_token_create_request import SandboxPublicTokenCreateRequest
from plaid.model.sandbox_public_token_create_request_options import SandboxPublicTokenCreateRequestOptions
from plaid.model.transactions_sync_request import TransactionsSyncRequest
from plaid.model.transactions_sync_request_options import TransactionsSyncRequestOptions

from tests.support.sandbox import SandboxAdmin, SandboxProcess

pytestmark = pytest.mark.deep


@pytest.fixture
def client(sandbox_process: SandboxProcess, sandbox: SandboxAdmin) -> Iterator[PlaidApi]:
    keys = {"clientId": "sandbox-client", "secret": "sandbox-secret"}
    with plaid.ApiClient(plaid.Configuration(host=sandbox_process.url("plaid"), api_key=keys)) as api_client:
        yield PlaidApi(api_client)
        api_client.rest_client.pool_manager.clear()


@pytest.fixture
def access_token(client: PlaidApi) -> str:
    made = client.sandbox_public_token_create(
        SandboxPublicTokenCreateRequest(institution_id="ins_1", initial_products=[Products("transactions")])
    )
    exchanged = client.item_public_token_exchange(ItemPublicTokenExchangeRequest(public_token=made.public_token))
    return str(exchanged.access_token)


def read_feed(client: PlaidApi, access_token: str, cursor: str, count: int) -> tuple[dict[str, Any], list[str], str]:
    added, removed = {}, []
    while True:
        page = client.transactions_sync(
            TransactionsSyncRequest(
                access_token=access_token,
                cursor=cursor,
                count=count,
                options=TransactionsSyncRequestOptions(days_requested=730),
            )
        )
        added.update((row.transaction_id, row) for row in [*page.added, *page.modified])
        removed.extend(row.transaction_id for row in page.removed)
        cursor = page.next_cursor
        if not page.has_more:
            return added, removed, cursor


def test_link_token_and_institution_parse(client: PlaidApi) -> None:
    link = client.link_token_create(
        LinkTokenCreateRequest(
            client_name="Dashtam",
            language="en",
            country_codes=[CountryCode("US")],
            products=[Products("transactions")],
            user=LinkTokenCreateRequestUser(client_user_id="u1"),
        )
    )
    institution = client.institutions_get_by_id(
        InstitutionsGetByIdRequest(institution_id="ins_1", country_codes=[CountryCode("US")])
    )
    assert link.link_token.startswith("link-sandbox-")
    assert institution.institution.name == "Sandbox Bank 1"


def test_item_parses_and_dies_with_its_token(client: PlaidApi, access_token: str) -> None:
    assert client.item_get(ItemGetRequest(access_token=access_token)).item.institution_id == "ins_1"
    swapped = client.item_access_token_invalidate(ItemAccessTokenInvalidateRequest(access_token=access_token))
    assert error_code(lambda: client.item_get(ItemGetRequest(access_token=access_token))) == "INVALID_ACCESS_TOKEN"
    client.item_remove(ItemRemoveRequest(access_token=swapped.new_access_token))
    removed = ItemGetRequest(access_token=swapped.new_access_token)
    assert error_code(lambda: client.item_get(removed)) == "INVALID_ACCESS_TOKEN"


def test_accounts_parse_with_the_books_balances(client: PlaidApi, access_token: str, sandbox: SandboxAdmin) -> None:
    cached = client.accounts_get(AccountsGetRequest(access_token=access_token))
    live = client.accounts_balance_get(AccountsBalanceGetRequest(access_token=access_token))
    books = {row["provider_account_id"]: row for row in sandbox.books("plaid-1")["accounts"]}
    assert {account.account_id for account in cached.accounts} == set(books)
    for account in live.accounts:
        owed = str(account.type) in ("credit", "loan")
        stated = -account.balances.current if owed else account.balances.current
        assert stated == pytest.approx(float(books[account.account_id]["current"]))


def test_feed_parses_and_equals_the_books_after_many_moves(
    client: PlaidApi, access_token: str, sandbox: SandboxAdmin
) -> None:
    rows, removed, cursor = read_feed(client, access_token, "", 150)
    assert not removed
    for _ in range(3):
        sandbox.advance(5, ["plaid-1"])
        changed, removed, cursor = read_feed(client, access_token, cursor, 5)
        rows |= changed
        for transaction_id in removed:
            rows.pop(transaction_id, None)
    books = sandbox.books("plaid-1")
    fed = {a["provider_account_id"] for a in books["accounts"] if a["type"] != "investment"}
    expected = {t["id"]: (t["amount"], t["status"]) for t in books["transactions"] if t["account"] in fed}
    assert {i: (f"{-row.amount:.2f}", "pending" if row.pending else "posted") for i, row in rows.items()} == expected


def test_posted_rows_name_the_pending_ones_they_replace(
    client: PlaidApi, access_token: str, sandbox: SandboxAdmin
) -> None:
    pending = sandbox.add_transaction("plaid-1", "-12.34", status="pending")
    _, _, cursor = read_feed(client, access_token, "now", 500)
    posted = sandbox.post_transaction("plaid-1", pending, amount="-14.00")
    rows, removed, _ = read_feed(client, access_token, cursor, 1)
    assert removed == [pending]
    assert (rows[posted].pending_transaction_id, rows[posted].amount) == (pending, 14.0)


def test_holdings_and_securities_parse_and_add_up(client: PlaidApi, access_token: str, sandbox: SandboxAdmin) -> None:
    answer = client.investments_holdings_get(InvestmentsHoldingsGetRequest(access_token=access_token))
    known = {security.security_id: security for security in answer.securities}
    kinds = {known[holding.security_id].type for holding in answer.holdings}
    assert {"cash", "equity"} <= kinds
    totals: dict[str, float] = {}
    for holding in answer.holdings:
        totals[holding.account_id] = totals.get(holding.account_id, 0.0) + holding.institution_value
    stated = {row["provider_account_id"]: float(row["current"]) for row in sandbox.books("plaid-1")["accounts"]}
    assert {account.account_id for account in answer.accounts} == set(totals)
    assert totals == pytest.approx({account: stated[account] for account in totals})


def test_investment_transactions_parse_page_by_page(client: PlaidApi, access_token: str) -> None:
    today, seen, total = datetime.now(UTC).date(), [], 1
    while len(seen) < total:
        answer = client.investments_transactions_get(
            InvestmentsTransactionsGetRequest(
                access_token=access_token,
                start_date=today - timedelta(days=700),
                end_date=today + timedelta(days=1),
                options=InvestmentsTransactionsGetRequestOptions(count=40, offset=len(seen)),
            )
        )
        total = answer.total_investment_transactions
        seen.extend(row.investment_transaction_id for row in answer.investment_transactions)
    assert len(set(seen)) == total > 40


def test_terms_of_cards_and_loans_parse(client: PlaidApi, sandbox: SandboxAdmin) -> None:
    """A login with one account of each kind that the stand-in has."""
    (login,) = sandbox.create_logins("plaid", accounts=15)
    made = client.sandbox_public_token_create(
        SandboxPublicTokenCreateRequest(
            institution_id="ins_1",
            initial_products=[Products("liabilities")],
            options=SandboxPublicTokenCreateRequestOptions(override_username=login),
        )
    )
    exchanged = client.item_public_token_exchange(ItemPublicTokenExchangeRequest(public_token=made.public_token))

    answer = client.liabilities_get(LiabilitiesGetRequest(access_token=exchanged.access_token))

    told = answer.liabilities
    kinds = (told.credit, told.mortgage, told.student, told.loan, told.line_of_credit)
    assert all(kinds)
    listed = {record.account_id for records in kinds for record in records}
    assert listed == {account.account_id for account in answer.accounts}


@pytest.mark.parametrize("code", ["ITEM_LOGIN_REQUIRED", "INSTITUTION_DOWN", "INTERNAL_SERVER_ERROR", "RATE_LIMIT"])
def test_errors_parse(client: PlaidApi, access_token: str, sandbox: SandboxAdmin, code: str) -> None:
    sandbox.inject("error", error=code, path="/accounts/get")
    assert error_code(lambda: client.accounts_get(AccountsGetRequest(access_token=access_token))) == code


def test_reset_login_asks_for_the_user(client: PlaidApi, access_token: str) -> None:
    client.sandbox_item_reset_login(SandboxItemResetLoginRequest(access_token=access_token))
    request = AccountsGetRequest(access_token=access_token)
    assert error_code(lambda: client.accounts_get(request)) == "ITEM_LOGIN_REQUIRED"
    assert client.item_get(ItemGetRequest(access_token=access_token)).item.error.error_code == "ITEM_LOGIN_REQUIRED"


def test_change_between_two_pages_demands_a_restart(client: PlaidApi, access_token: str, sandbox: SandboxAdmin) -> None:
    first = client.transactions_sync(TransactionsSyncRequest(access_token=access_token, count=10))
    sandbox.add_transaction("plaid-1", "1.00")
    request = TransactionsSyncRequest(access_token=access_token, count=10, cursor=first.next_cursor)
    assert error_code(lambda: client.transactions_sync(request)) == "TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION"


def test_feed_that_is_not_ready_gives_no_cursor(client: PlaidApi, access_token: str, sandbox: SandboxAdmin) -> None:
    sandbox.hold_back_data("plaid-1", calls=1)
    request = TransactionsSyncRequest(access_token=access_token)
    early, ready = client.transactions_sync(request), client.transactions_sync(request)
    assert (early.next_cursor, early.added, str(early.transactions_update_status)) == ("", [], "NOT_READY")
    assert ready.added


def error_code(call: Callable[[], Any]) -> str:
    with pytest.raises(plaid.ApiException) as raised:
        call()
    parsed = plaid.ApiClient().deserialize(_Body(raised.value.body), (PlaidError,), _check_type=True)
    return str(parsed.error_code)


class _Body:
    """As much of a response as the client's deserializer asks for."""

    def __init__(self, body: Any) -> None:
        self.data = body.decode() if isinstance(body, bytes) else body
