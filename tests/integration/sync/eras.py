"""A provider whose ids are valid only within one link, as those of Plaid's Items: a new link gives all of them anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

import msgspec

from tests.integration.sync.feeds import ModelIntegration
from worker.integrations.kit.base import Page, RawRecord, Removal, SyncRequest
from worker.models.records import AccountRecord, BalanceRecord, TransactionRecord
from worker.models.vocabulary import AccountType, TransactionStatus, TransactionType

FIRST_DAY = date(2025, 3, 1)


@dataclass(frozen=True, slots=True)
class Moved:
    """One transaction as the institution knows it: `number` tells it from others, but no client ever sees it."""

    number: int
    account: str
    amount: str
    day: int = 0
    text: str = "Coffee"
    status: str = "posted"

    @property
    def date(self) -> date:
        return FIRST_DAY + timedelta(days=self.day)

    @property
    def looks(self) -> tuple[str, date, Decimal, str, str]:
        return self.account, self.date, Decimal(self.amount), self.text, self.status


@dataclass(frozen=True, slots=True)
class Kept:
    """One account as the institution knows it."""

    name: str
    mask: str | None = "0001"
    institution: str | None = "ins_1"
    lasting: tuple[str, ...] = ()
    currency: str = "USD"


@dataclass(slots=True)
class Institution:
    """The accounts of one person, and their rows."""

    accounts: dict[str, Kept] = field(default_factory=dict)
    rows: dict[int, Moved] = field(default_factory=dict)

    def put(self, *rows: Moved) -> None:
        self.rows |= {row.number: row for row in rows}

    def add(self, *accounts: Kept) -> None:
        self.accounts |= {account.name: account for account in accounts}

    def looks(self, account: str | None = None) -> list[tuple[str, date, Decimal, str, str]]:
        return sorted(row.looks for row in self.rows.values() if account in (None, row.account))


class EraIntegration(ModelIntegration):
    """Lists an institution's accounts and rows under ids that begin with `era`. A cursor lists what was sent."""

    page_size = 3

    def __init__(self, institution: Institution, era: str = "first") -> None:
        super().__init__()
        self.institution = institution
        self.era = era

    def id_of(self, known: object) -> str:
        return f"{self.era}/{known}"

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        yield self._listing()
        sent: dict[str, str] = msgspec.json.decode(request.cursors.get("feed") or b"{}")
        now = {self.id_of(row.number): row for row in self.institution.rows.values()}
        texts = {key: msgspec.json.encode(row).decode() for key, row in now.items()}
        changed = [key for key, text in texts.items() if sent.get(key) != text]
        gone = [key for key in sent if key not in texts]
        while True:
            self._misbehave()
            part, changed = changed[: self.page_size], changed[self.page_size :]
            sent |= {key: texts[key] for key in part}
            removals = [] if changed else [Removal(key, None) for key in gone]
            sent = sent if changed else {key: text for key, text in sent.items() if key in texts}
            yield Page(
                feed="feed",
                cursor=msgspec.json.encode(sent).decode(),
                more=bool(changed),
                transactions=[RawRecord(key, self.id_of(now[key].account), texts[key].encode()) for key in part],
                removals=removals,
                map_transaction=_mapped,
            )
            if not changed:
                return

    def _listing(self) -> Page:
        self._misbehave()
        accounts = self.institution.accounts.values()
        return Page(
            accounts=[
                AccountRecord(
                    account_key=self.id_of(one.name),
                    name=one.name.rstrip("'"),
                    type=AccountType.DEPOSITORY,
                    subtype="checking",
                    mask=one.mask,
                    currency=one.currency,
                    institution=one.institution,
                    stable_keys=one.lasting,
                )
                for one in accounts
            ],
            accounts_complete=True,
            balances=[
                BalanceRecord(account_key=self.id_of(one.name), current=Decimal(7), source="eras") for one in accounts
            ],
        )


def _mapped(raw: RawRecord) -> TransactionRecord:
    row = msgspec.json.decode(raw.raw, type=Moved)
    return TransactionRecord(
        account_key=raw.account_key,
        transaction_key=raw.key,
        type=TransactionType.PAYMENT,
        status=TransactionStatus(row.status),
        amount=Decimal(row.amount),
        posted_date=row.date,
        description=row.text,
    )
