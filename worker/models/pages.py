"""A page of a sync: the records that integrations read and that the sync writes into tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple

from worker.errors import ProviderError
from worker.models.records import (
    AccountRecord,
    BalanceRecord,
    HoldingRecord,
    LiabilityRecord,
    Reject,
    TransactionRecord,
)


class RawRecord(NamedTuple):
    """A transaction as it was received, not yet mapped.

    Attributes:
        key: the provider's transaction id; where there is none, a fingerprint of the content.
        account_key: the provider's account id.
        raw: the record's own JSON text. A record with the same text as before is unchanged and is not mapped.
    """

    key: str
    account_key: str
    raw: bytes


class Removal(NamedTuple):
    """A transaction that the provider withdraws. `account_key` is None when the feed does not say."""

    key: str
    account_key: str | None


class Window(NamedTuple):
    """The days for which a page lists every transaction of an account. The first and the last day are included.

    Attributes:
        posted: a stored posted row that is not listed is withdrawn, like a pending one. Set it only where the provider
            gives posted rows new ids or deletes them without saying so.
    """

    account_key: str
    first: date
    last: date
    posted: bool = False


@dataclass(slots=True, kw_only=True)
class Page:
    """One answer of a provider, applied in one transaction together with its cursor.

    Attributes:
        feed: the feed whose cursor this page moves; "" when it moves none.
        cursor: the position after this page; None leaves the stored cursor as it is.
        more: there are more pages in this loop; the loop's first cursor is kept until it ends.
        accounts_complete: `accounts` is the complete listing; stored accounts missing from it have vanished.
        past_balances: balances of days before that of the newest stated one; they are only kept by day.
        holdings_complete_for: accounts all of whose positions are in `holdings`.
        liabilities_complete_for: accounts all of whose liabilities are in `liabilities`.
        transactions: as listed; where an id repeats, the last one counts, with a flag if they differ.
        map_transaction: maps one of `transactions`; raises `BadRecord`.
        beside: data from elsewhere in the answer that is needed to map a transaction, such as the security that it
            names, by account and key. When this data changes, a record with unchanged text is mapped again.
        windows: the accounts and days that `transactions` lists completely: a stored pending row that falls in one and
            is not listed is withdrawn, and a posted one if the window says so.
        grant_expires_at: when the user's consent ends, as the provider has just said; None if it has not said it.
        rejects: records that could not be read; they go to quarantine.
        problems: errors of a part of the login; the other parts are synced. `NotReady` plans the next sync, any other
            makes the run partial.
    """

    feed: str = ""
    cursor: str | None = None
    more: bool = False
    accounts: Sequence[AccountRecord] = ()
    accounts_complete: bool = False
    balances: Sequence[BalanceRecord] = ()
    past_balances: Sequence[BalanceRecord] = ()
    holdings: Sequence[HoldingRecord] = ()
    holdings_complete_for: frozenset[str] = frozenset()
    liabilities: Sequence[LiabilityRecord] = ()
    liabilities_complete_for: frozenset[str] = frozenset()
    transactions: Sequence[RawRecord] = ()
    map_transaction: Callable[[RawRecord], TransactionRecord] | None = None
    beside: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    removals: Sequence[Removal] = ()
    windows: Sequence[Window] = ()
    grant_expires_at: datetime | None = None
    rejects: Sequence[Reject] = ()
    problems: Sequence[ProviderError] = ()
