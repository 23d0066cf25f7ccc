"""What a page of a sync is: the hand-over from integrations, which read it, to the tables, which keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from worker.errors import ProviderError
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, Reject, TransactionRecord


class RawRecord(NamedTuple):
    """A transaction as received, not yet read.

    Attributes:
        key: the provider's transaction id, or a fingerprint of the content where it gives none.
        account_key: the provider's account id.
        raw: the record's own JSON text; equal text means an unchanged record, which is then never read.
    """

    key: str
    account_key: str
    raw: bytes


class Removal(NamedTuple):
    """A transaction that the provider withdraws. `account_key` is None when the feed does not say."""

    key: str
    account_key: str | None


class Window(NamedTuple):
    """Days, both included, for which a page lists every transaction of an account."""

    account_key: str
    first: date
    last: date


@dataclass(slots=True, kw_only=True)
class Page:
    """One answer's worth of a sync, applied in one transaction with its cursor.

    Attributes:
        feed: whose cursor this page moves; "" when it moves none.
        cursor: the position after this page; None leaves the stored one.
        more: the feed's loop goes on; the loop's first cursor is kept until it ends.
        accounts_complete: `accounts` is the whole listing, so that accounts missing from it have vanished.
        holdings_complete_for: accounts whose whole set of positions is in `holdings`.
        transactions: as listed; where an id repeats, the last one counts, flagged if they differ.
        map_transaction: reads one of `transactions`; raises `BadRecord`.
        beside: by account and key of a transaction, what reading it takes from elsewhere in the answer, such as the
            instrument that it names. A record whose text is as it was is read anew when this changes.
        windows: what `transactions` lists completely: pending rows in there that are not listed are withdrawn.
        rejects: records that could not be read; they go to quarantine.
        problems: trouble with a part of the login; the rest goes on. `NotReady` schedules, all others make the run
            partial.
    """

    feed: str = ""
    cursor: str | None = None
    more: bool = False
    accounts: Sequence[AccountRecord] = ()
    accounts_complete: bool = False
    balances: Sequence[BalanceRecord] = ()
    holdings: Sequence[HoldingRecord] = ()
    holdings_complete_for: frozenset[str] = frozenset()
    transactions: Sequence[RawRecord] = ()
    map_transaction: Callable[[RawRecord], TransactionRecord] | None = None
    beside: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    removals: Sequence[Removal] = ()
    windows: Sequence[Window] = ()
    rejects: Sequence[Reject] = ()
    problems: Sequence[ProviderError] = ()
