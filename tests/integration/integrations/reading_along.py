"""A sync into dictionaries: what tables should hold, without a database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from worker.errors import PagingRestart, ProviderError
from worker.integrations.kit.base import Caller, Page, SyncRequest
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, Reject, TransactionRecord

BACKFILL = timedelta(days=730)


@dataclass
class Kept:
    """Rows as tables would hold them, and the cursors committed with them."""

    accounts: dict[str, AccountRecord] = field(default_factory=dict)
    balances: dict[str, BalanceRecord] = field(default_factory=dict)
    holdings: dict[tuple[str, str], HoldingRecord] = field(default_factory=dict)
    transactions: dict[str, TransactionRecord] = field(default_factory=dict)
    cursors: dict[str, str] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    problems: list[ProviderError] = field(default_factory=list)
    pages: int = 0

    def apply(self, page: Page) -> None:
        """One page: upserts first, then removals, then what was listed completely and is missing."""
        self.pages += 1
        if page.accounts_complete:
            self.accounts.clear()
        self.accounts |= {account.account_key: account for account in page.accounts}
        self.balances |= {balance.account_key: balance for balance in page.balances}
        self.holdings = {k: v for k, v in self.holdings.items() if k[0] not in page.holdings_complete_for}
        self.holdings |= {(holding.account_key, holding.holding_key): holding for holding in page.holdings}
        listed = {row.key for row in page.transactions}
        for row in page.transactions:
            assert page.map_transaction is not None
            record = page.map_transaction(row)
            self.transactions[row.key] = record
            self.transactions.pop(record.pending_key or "", None)
        for removal in page.removals:
            self.transactions.pop(removal.key, None)
        for window in page.windows:
            for key, record in list(self.transactions.items()):
                if (
                    record.account_key == window.account_key
                    and record.status == "pending"
                    and window.first <= record.posted_date <= window.last
                    and key not in listed
                ):
                    del self.transactions[key]
        self.rejects += page.rejects
        self.problems += page.problems
        if page.cursor is not None:
            self.cursors[page.feed] = page.cursor

    async def sync(self, integration: Any, access_token: str, **more: Any) -> Kept:
        """One sync from the kept cursors; a demanded restart begins again from the cursors at its start."""
        start = dict(self.cursors)
        for _ in range(10):
            request = SyncRequest(
                caller=Caller(),
                access_token=access_token,
                cursors=dict(self.cursors),
                now=datetime.now(UTC),
                backfill=BACKFILL,
                **more,
            )
            try:
                async for page in integration.pages(request):
                    self.apply(page)
            except PagingRestart as restart:
                self.cursors.pop(restart.feed, None)
                self.cursors |= {restart.feed: start[restart.feed]} if restart.feed in start else {}
            else:
                return self
        raise AssertionError("the provider demanded too many restarts")

    def differences(self, books: dict[str, Any]) -> list[str]:
        """What differs from the provider's own books, in words; nothing if all is equal."""
        return [*self._account_differences(books), *self._transaction_differences(books), *self._holdings(books)]

    def _account_differences(self, books: dict[str, Any]) -> list[str]:
        found = []
        wanted = {account["provider_account_id"]: account for account in books["accounts"]}
        if wanted.keys() != self.accounts.keys():
            found.append(f"accounts {sorted(wanted.keys() ^ self.accounts.keys())}")
        for key in wanted.keys() & self.accounts.keys():
            account, balance = self.accounts[key], self.balances[key]
            have = (account.type, account.subtype, account.currency, balance.current)
            want = (*(wanted[key][name] for name in ("type", "subtype", "currency")), Decimal(wanted[key]["current"]))
            if have != want:
                found.append(f"account {key}: {have} instead of {want}")
        return found

    def _transaction_differences(self, books: dict[str, Any]) -> list[str]:
        found = []
        wanted = {row["id"]: row for row in books["transactions"]}
        if wanted.keys() != self.transactions.keys():
            found.append(f"transactions {sorted(wanted.keys() ^ self.transactions.keys())}")
        for key in wanted.keys() & self.transactions.keys():
            record, row = self.transactions[key], wanted[key]
            have = (record.account_key, record.amount, record.status, record.posted_date.isoformat())
            want = (row["account"], Decimal(row["amount"]), row["status"], row["date"])
            if have != want:
                found.append(f"transaction {key}: {have} instead of {want}")
        return found

    def _holdings(self, books: dict[str, Any]) -> list[str]:
        """Symbols are left out: for bonds, Schwab has the CUSIP in their place."""
        have = sorted(
            (h.account_key, h.security.type, h.quantity, h.security.multiplier, h.market_value)
            for h in self.holdings.values()
        )
        want = sorted(
            (h["account"], h["type"], Decimal(h["quantity"]), Decimal(h["multiplier"]), Decimal(h["market_value"]))
            for h in books["holdings"]
        )
        return [] if have == want else [f"holdings {[row for row in have + want if (row in have) != (row in want)]}"]
