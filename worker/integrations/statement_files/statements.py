"""What every format of file is turned into: statements with rows; and the pages that are made of them.

No full account number is stored. Keys of accounts and rows are made with the login's own secret, which is encrypted
like every token: without it, nobody can find a number by trying all of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal

import msgspec

from worker.errors import BadPayload, BadRecord, Scope
from worker.integrations.kit import moments, money, reading
from worker.integrations.kit.base import FileStatement, Page, RawRecord, SyncRequest, Window
from worker.integrations.kit.masking import last_four
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, Reject, TransactionRecord
from worker.models.vocabulary import AccountType, TransactionStatus, TransactionType

_SAVED = "saved:"


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One transaction as it is stored beside its mapping.

    Attributes:
        ref: the bank's own reference; empty if it has none.
        kind, subtype: our words for what it is.
        word: the bank's own word for it.
    """

    amount: Decimal
    day: date
    currency: str
    ref: str = ""
    description: str | None = None
    counterparty: str | None = None
    kind: TransactionType = TransactionType.OTHER
    subtype: str | None = None
    word: str | None = None
    valued: date | None = None
    pending: bool = False


@dataclass(kw_only=True)
class Statement:
    """What a file says of one account.

    Attributes:
        bank, number: identify the account. The number is never stored.
        first, last: the days that the statement covers; None if it does not say.
        opening, closing: stated balances before the first row and after the last.
        closed_on: the day of the closing balance.
        rejects: records that could not be read.
        lists_all: whether it lists all rows of its days, so that a pending row that it lacks is gone.
        is_final: whether it was written when its last day was over; a report of the same day is older than it.
    """

    bank: str
    number: str
    currency: str
    type: AccountType = AccountType.OTHER
    subtype: str = "other"
    first: date | None = None
    last: date | None = None
    rows: list[Row] = field(default_factory=list)
    opening: Decimal | None = None
    closing: Decimal | None = None
    available: Decimal | None = None
    closed_on: date | None = None
    holdings: list[HoldingRecord] | None = None
    rejects: list[Reject] = field(default_factory=list)
    lists_all: bool = True
    is_final: bool = True

    @property
    def mask(self) -> str:
        """The last four characters of the number."""
        return last_four(self.number)

    @property
    def span(self) -> tuple[date, date] | None:
        """The days that it covers; without any statement of them, those of its rows."""
        days = [row.day for row in self.rows] or [day for day in (self.closed_on,) if day is not None]
        first, last = self.first or min(days, default=None), self.last or max(days, default=None)
        return None if first is None or last is None or first > last else (first, last)

    @property
    def day(self) -> date:
        """The day of its balance, or else the last that it covers; the first of all days if it says neither."""
        return self.closed_on or (self.span or (date.min, date.min))[1]

    @property
    def age(self) -> tuple[date, bool]:
        """Of two statements of an account, the newer one has the greater."""
        return self.day, self.is_final

    @contextmanager
    def refusing(self, place: str, **fields: str | None) -> Iterator[None]:
        """A record that cannot be read (`BadRecord`) becomes a reject, and the rest of the statement is read.

        Args:
            place: what it is, and which.
            fields: what it states; masked.
        """
        try:
            yield
        except BadRecord as error:
            self.rejects.append(reject(error.reason, f"{place} of account …{self.mask}", **fields))

    def told(self) -> FileStatement:
        """For people."""
        span = self.span or (date.min, date.min)
        name = f"{self.subtype.replace('_', ' ')} …{self.mask}"
        return FileStatement(
            name, self.currency, *span, rows=len(self.rows), refused=len(self.rejects), balance=self.closing
        )

    def adds_up(self) -> bool:
        """Whether the rows explain the way from the opening to the closing balance, where both are stated."""
        if self.opening is None or self.closing is None or {row.currency for row in self.rows} - {self.currency}:
            return True
        booked = [row.amount for row in self.rows if not row.pending]
        return money.total([self.opening, *booked]) == self.closing


class Cursor(msgspec.Struct, frozen=True):
    """The cursor of an account: the day of the newest balance that a file has stated, and whether that day was over."""

    stated_on: date
    is_final: bool = False


_encode = msgspec.json.Encoder(decimal_format="string").encode
_row = reading.Reader(Row)
_cursor = reading.Reader(Cursor)


def pages(statements: Sequence[Statement], request: SyncRequest) -> Iterator[Page]:
    """The statements as pages of a run: all accounts first, then the rows of each statement."""
    secret = request.access_token.encode()
    keyed = [(_account_key(secret, one.bank, one.number), one) for one in statements]
    yield Page(accounts=[_account(key, one) for key, one in dict(reversed(keyed)).items()])
    of_account: defaultdict[str, list[Statement]] = defaultdict(list)
    for key, one in keyed:
        of_account[key].append(one)
    alone = {identity for found in of_account.values() for identity in _alone(found)}
    for key, one in sorted(keyed, key=lambda pair: ((pair[1].span or (date.min, date.min))[1], pair[1].is_final)):
        feed = f"account:{key}"
        if one.age < _newest(request.cursors.get(feed)):  # what became of its pending rows is in newer files
            one.rows = [row for row in one.rows if not row.pending]
        page = Page(feed=feed, transactions=_rows(secret, key, one), map_transaction=_mapped)
        page.rejects = [msgspec.structs.replace(reject, account_key=key) for reject in one.rejects]
        page.windows = _windows(key, one, request.cursors.get(feed)) if id(one) in alone else ()
        if not one.adds_up():
            page.problems = (BadPayload("balances_do_not_add_up", scope=Scope.ACCOUNT, account_key=key),)
        _state(page, key, one, request.cursors.get(feed))
        yield page


def without_number(secret: str, number: str) -> str:
    """What can be stored in place of an account's number, and is taken for it by `pages`: its key and last digits."""
    return f"{_SAVED}{_account_key(secret.encode(), '', number)}:{last_four(number)}"


def _account_key(secret: bytes, bank: str, number: str) -> str:
    if number.startswith(_SAVED):
        return number.removeprefix(_SAVED).partition(":")[0]
    return _keyed(secret, bank, number)


def _keyed(secret: bytes, *parts: str) -> str:
    return hmac.digest(secret, "\0".join(parts).encode(errors="replace"), hashlib.sha256).hex()[:24]


def _account(key: str, one: Statement) -> AccountRecord:
    return AccountRecord(
        account_key=key,
        name=one.told().account.capitalize(),
        type=one.type,
        subtype=one.subtype,
        mask=one.mask,
        currency=one.currency,
    )


def _alone(statements: Iterable[Statement]) -> Iterator[int]:
    """The identities of the statements of an account whose days no other one in the file has."""
    spans = sorted((one.span, id(one)) for one in statements if one.span is not None)
    before = date.min
    for at, ((first, last), identity) in enumerate(spans):
        if before < first and (at + 1 == len(spans) or spans[at + 1][0][0] > last):
            yield identity
        before = max(before, last)


def _windows(key: str, one: Statement, cursor: str | None) -> tuple[Window, ...]:
    """The days in which pending rows that the statement lacks are gone."""
    if one.span is None or not one.lists_all or one.rejects or one.age < _newest(cursor):
        return ()
    return (Window(key, *one.span),)


def _newest(cursor: str | None) -> tuple[date, bool]:
    """The age of the newest statement that was imported before."""
    try:
        kept = _cursor.page(cursor.encode()) if cursor else Cursor(date.min)
    except BadPayload:
        kept = Cursor(date.min)
    return kept.stated_on, kept.is_final


def _state(page: Page, key: str, one: Statement, cursor: str | None) -> None:
    """Adds balance and positions; if a file with newer ones was imported before, only the balance of its day."""
    newest = _newest(cursor)
    if one.day == date.min:
        return
    stated = [] if one.closing is None else [_balance(key, one, one.closing)]
    if one.age < newest:
        page.past_balances = stated if one.day < newest[0] else ()
        return
    if stated:
        page.cursor = _encode(Cursor(*one.age)).decode()
        page.balances = stated
    if one.holdings is not None:
        page.cursor = _encode(Cursor(*one.age)).decode()
        held = [msgspec.structs.replace(holding, account_key=key) for holding in one.holdings]
        page.holdings = reading.distinct(held)
        page.holdings_complete_for = frozenset() if one.rejects else frozenset({key})


def _balance(key: str, one: Statement, closing: Decimal) -> BalanceRecord:
    return BalanceRecord(
        account_key=key,
        current=closing,
        available=one.available,
        source="statement",
        currency=one.currency,
        as_of=datetime.combine(one.day, time.min, UTC),
    )


def _rows(secret: bytes, account_key: str, one: Statement) -> list[RawRecord]:
    """Gives each row its key, which is the same in every file that has the row.

    Banks use references again, and some change them. So the key is made of reference, day and amount; a row without a
    reference is recognised by its whole content. Equal rows of one day are numbered. Of several rows with the same
    reference, day and amount that differ in their texts, the first in alphabetical order has the plain key.
    """
    texts: defaultdict[tuple[str, ...], set[bytes]] = defaultdict(set)
    encoded = [(row, _encode(row)) for row in one.rows]
    for row, raw in encoded:
        texts[_identity(row)].add(raw)
    seen: Counter[tuple[str, ...]] = Counter()
    found = []
    for row, raw in encoded:
        parts = _identity(row)
        if row.ref and raw != min(texts[parts]):
            parts = (*parts, raw.decode())
        elif not row.ref:
            seen[parts] += 1
            parts = (*parts, str(seen[parts]))
        found.append(RawRecord(_keyed(secret, account_key, *parts), account_key, raw))
    return found


def _identity(row: Row) -> tuple[str, ...]:
    day_and_amount = (row.day.isoformat(), str(row.amount.normalize(money.EXACT)), row.currency)
    if row.ref:
        return (row.ref, *day_and_amount)
    return ("", *day_and_amount, row.description or "", row.counterparty or "", str(row.pending))


def _mapped(record: RawRecord) -> TransactionRecord:
    raw, flags = reading.cleaned(record.raw)
    row = _row.record(raw)
    return TransactionRecord(
        account_key=record.account_key,
        transaction_key=record.key,
        type=row.kind,
        subtype=row.subtype,
        status=TransactionStatus.PENDING if row.pending else TransactionStatus.POSTED,
        amount=money.checked(row.amount, "amount"),
        currency=row.currency,
        posted_date=moments.day(row.day, "date"),
        settlement_date=row.valued,
        description=row.description,
        counterparty=row.counterparty,
        provider_type=row.word,
        flags=flags,
    )


def reject(reason: str, place: str, **fields: str | None) -> Reject:
    """A record that cannot be read. `place` says where in the file it is; `fields` are masked."""
    return msgspec.structs.replace(
        reading.reject("transaction", BadRecord(reason), msgspec.json.encode(fields)), detail=place
    )
