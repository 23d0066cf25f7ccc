"""Answers of the Plaid stand-in about an Item's accounts, transactions and investments."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from worker.integrations.plaid.stand_in import books, terms, wire
from worker.integrations.plaid.stand_in.arguments import chosen_accounts, day_of, options_of, text_of, whole_of
from worker.integrations.plaid.stand_in.errors import PlaidError
from worker.integrations.plaid.stand_in.items import Item, Items
from worker.sandbox import change_feed
from worker.sandbox.core import Login, Profile
from worker.sandbox.ledger import Account, Transaction
from worker.sandbox.wire import Answer, array, document

_MAX_INVESTMENT_DAYS = 731


class Data:
    """Answers for an Item whose credentials were accepted. Every method raises PlaidError for a bad request."""

    def __init__(self, profile: Profile, items: Items) -> None:
        self._profile = profile
        self._sandbox = profile.sandbox
        self._items = items
        self._windows: dict[str, tuple[object, list[Transaction]]] = {}

    def accounts(self, item: Item, body: dict[str, Any]) -> Answer:
        """`/accounts/get` and `/accounts/balance/get`."""
        accounts = chosen_accounts(item.login, body)
        return self._data(accounts=self._listed(item.login, accounts), item=self._items.describe(item))

    def _listed(self, login: Login, accounts: list[Account]) -> bytes:
        login.served.accounts.update(account.id for account in accounts)
        return array([wire.account(account) for account in accounts] + login.ledger.verbatim_accounts)

    def _data(self, **members: Any) -> Answer:
        return Answer(200, document(**members, request_id=self._items.request_id()))

    def sync(self, item: Item, body: dict[str, Any]) -> Answer:
        """`/transactions/sync`."""
        login, options = item.login, options_of(body)
        count = whole_of(body, "count", 100, 1, 500)
        text, stream = text_of(body, "cursor"), text_of(options, "account_id")
        accounts = [a for a in login.ledger.open_accounts() if books.in_feed(a) and stream in ("", a.id)]
        if stream and not accounts:
            raise PlaidError("INVALID_ACCOUNT_ID")
        if login.not_ready_left:
            login.not_ready_left -= 1
            empty = change_feed.Page()
            return self._sync_answer(login, accounts, empty, "", "NOT_READY")
        if login.visible_from is None:
            days = whole_of(options, "days_requested", 90, 1, 730)
            login.visible_from = self._sandbox.clock.today() - timedelta(days=days)
        if text and text != "now" and login.forced_restarts:
            login.forced_restarts -= 1
            raise PlaidError("TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION")
        stops = self._profile.policy.mutation == "error"
        try:
            cursor = change_feed.start(text, login, item.id, stream, mutation_stops=stops)
        except change_feed.BadCursorError as error:
            raise PlaidError("INVALID_FIELD", "cursor not associated with access_token") from error
        except change_feed.MutatedError as error:
            raise PlaidError("TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION") from error
        listed = {a.id for a in login.ledger.accounts.values() if books.in_feed(a) and stream in ("", a.id)}
        page = change_feed.page(login, cursor, count, accounts=listed, removal=wire.removal)
        next_cursor = page.cursor.write(item.id)
        return self._sync_answer(login, accounts, page, next_cursor, "HISTORICAL_UPDATE_COMPLETE")

    def _sync_answer(
        self, login: Login, accounts: list[Account], page: change_feed.Page, next_cursor: str, status: str
    ) -> Answer:
        login.served.rows += len(page.added) + len(page.modified)
        return self._data(
            accounts=self._listed(login, accounts),
            added=array(page.added),
            modified=array(page.modified),
            removed=array(page.removed),
            next_cursor=next_cursor,
            has_more=page.more,
            transactions_update_status=status,
        )

    def holdings(self, item: Item, body: dict[str, Any]) -> Answer:
        """`/investments/holdings/get`."""
        accounts = self._investing(item.login, body)
        day, cash = self._sandbox.clock.today().isoformat(), self._profile.market["CUR:USD"]
        rows = [row for account in accounts for row in wire.holdings(account, cash, day)]
        held = {id_: h.security for account in accounts for id_, h in account.holdings.items()} | {cash.id: cash}
        served = item.login.served
        served.holdings = {(a.id, id_) for a in accounts for id_ in (*a.holdings, cash.id)}
        return self._data(
            accounts=self._listed(item.login, accounts),
            holdings=array(rows),
            securities=array(wire.security(security, day) for security in held.values()),
            item=self._items.describe(item),
            is_investments_fallback_item=False,
        )

    def investments(self, item: Item, body: dict[str, Any]) -> Answer:
        """`/investments/transactions/get`."""
        login, options = item.login, options_of(body)
        first, last = day_of(body, "start_date"), day_of(body, "end_date")
        if last < first or (last - first).days > _MAX_INVESTMENT_DAYS:
            raise PlaidError("INVALID_FIELD", "start_date and end_date must be at most 24 months apart")
        count = whole_of(options, "count", 100, 1, 500)
        offset = whole_of(options, "offset", 0, 0, 1_000_000_000)
        accounts = self._investing(login, body)
        if login.not_ready_left and options.get("async_update"):
            login.not_ready_left -= 1
            raise PlaidError("PRODUCT_NOT_READY")
        rows = self._newest_first(login, accounts, first, last)
        page = rows[offset : offset + count]
        named = {row.security.id: row.security for row in page if row.security}
        day = self._sandbox.clock.today().isoformat()
        login.served.window(page, (row for a in accounts for row in a.removed if first <= row.date <= last))
        verbatim = [record for account in accounts for record in account.verbatim]
        return self._data(
            accounts=self._listed(login, accounts),
            securities=array(wire.security(security, day) for security in named.values()),
            investment_transactions=array([self._profile.render(row) for row in page] + verbatim),
            total_investment_transactions=len(rows) + len(verbatim),
            item=self._items.describe(item),
            is_investments_fallback_item=False,
        )

    def liabilities(self, item: Item, body: dict[str, Any]) -> Answer:
        """`/liabilities/get`."""
        today = self._sandbox.clock.today()
        accounts = [account for account in chosen_accounts(item.login, body) if account.type in ("credit", "loan")]
        if not accounts:
            raise PlaidError("NO_LIABILITY_ACCOUNTS")
        return self._data(
            accounts=self._listed(item.login, accounts),
            liabilities=terms.liabilities(accounts, today),
            item=self._items.describe(item),
        )

    def _newest_first(self, login: Login, accounts: list[Account], first: date, last: date) -> list[Transaction]:
        # Paging by offset asks for the same window many times; it is sorted only once while the books do not change.
        key = (login.ledger.head, first, last, tuple(account.id for account in accounts))
        if login.name not in self._windows or self._windows[login.name][0] != key:
            start, end = datetime.combine(first, time.min, UTC), datetime.combine(last, time.max, UTC)
            rows = [row for a in accounts for row in a.between(start, end)]
            rows.sort(key=lambda row: (row.moment, row.id), reverse=True)
            self._windows[login.name] = (key, rows)
        return self._windows[login.name][1]

    def _investing(self, login: Login, body: dict[str, Any]) -> list[Account]:
        accounts = [account for account in chosen_accounts(login, body) if account.type == "investment"]
        if not accounts:
            raise PlaidError("NO_INVESTMENT_ACCOUNTS")
        return accounts
