"""A provider that lives in this process: exact books, a change log, cursors and windows, and misbehaviour on demand.

Accounts `A` and `B` are in a feed by cursor, with removals; account `W` is read by date window, without a removal
feed. The feed by cursor lists the net difference between two moments of the books: what came and went in between, or
is as it was, is not mentioned. That is the hardest case for a client whose loop is restarted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import ClassVar

import msgspec

from worker.errors import AccessExpired, PagingRestart
from worker.integrations.kit.base import Page, RawRecord, RefreshPolicy, Removal, SyncRequest, TokenAnswer, Window
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import PUBLIC_TOKEN, LinkKind
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, SecurityRecord, TransactionRecord
from worker.models.vocabulary import AccountType, SecurityType, TransactionStatus, TransactionType

DAY = date(2025, 3, 14)
CURSOR_ACCOUNTS = ("A", "B")
WINDOW_ACCOUNT = "W"
ACCOUNTS = (*CURSOR_ACCOUNTS, WINDOW_ACCOUNT, "C")


@dataclass(frozen=True, slots=True)
class Movement:
    """One transaction as the provider holds it."""

    key: str
    account: str
    amount: str
    status: str = "posted"
    pending_key: str | None = None
    description: str = ""
    day: str = DAY.isoformat()

    def raw(self) -> RawRecord:
        return RawRecord(self.key, self.account, msgspec.json.encode(self))


def read_movement(raw: RawRecord) -> TransactionRecord:
    movement = msgspec.json.decode(raw.raw, type=Movement)
    return TransactionRecord(
        account_key=movement.account,
        transaction_key=movement.key,
        type=TransactionType.PAYMENT,
        status=TransactionStatus(movement.status),
        amount=Decimal(movement.amount),
        posted_date=date.fromisoformat(movement.day),
        description=movement.description,
        pending_key=movement.pending_key,
    )


@dataclass(slots=True)
class Books:
    """What the provider holds. `log` has every version of every row of the feed by cursor, in order."""

    log: list[tuple[str, Movement | None]] = field(default_factory=list)
    live: dict[str, Movement] = field(default_factory=dict)
    windowed: dict[str, Movement] = field(default_factory=dict)
    holdings: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    repeats: set[str] = field(default_factory=set)

    def put(self, movement: Movement) -> None:
        if movement.account == WINDOW_ACCOUNT:
            self.windowed[movement.key] = movement
            return
        self.live[movement.key] = movement
        self.log.append((movement.key, movement))

    def remove(self, key: str) -> None:
        if key in self.windowed:
            del self.windowed[key]
            return
        self.live.pop(key, None)
        self.log.append((key, None))

    def forget(self, key: str) -> None:
        """Loses a row without a word: only a full sync can notice."""
        del self.live[key]
        self.log = [entry for entry in self.log if entry[0] != key]

    def at(self, moment: int) -> dict[str, Movement]:
        held: dict[str, Movement] = {}
        for key, movement in self.log[:moment]:
            if movement is None:
                held.pop(key, None)
            else:
                held[key] = movement
        return held

    def difference(self, base: int, head: int) -> list[tuple[str, Movement | None]]:
        """Net changes, in the order of the last one of each key."""
        before, after = self.at(base), self.at(head)
        order = {key: place for place, (key, _) in enumerate(self.log[:head]) if place >= base}
        changed = sorted(order, key=order.__getitem__)
        listed = [(key, after.get(key)) for key in changed if before.get(key) != after.get(key)]
        return listed + [(key, after[key]) for key in sorted(self.repeats) if key in after and key not in order]


@dataclass(slots=True)
class Plan:
    """What goes wrong in the next sync. Pages are counted from 0 over all attempts of the sync."""

    page_size: int = 3
    mutate_before: dict[int, Callable[[], None]] = field(default_factory=dict)
    refuse_access_before: set[int] = field(default_factory=set)
    die_before: int | None = None
    die_within: int | None = None
    restarts: int = 0


class Killed(BaseException):
    """The worker's process ended here."""


class ModelIntegration(Integration):
    """An integration over `Books`."""

    key: ClassVar[str] = "model"
    name: ClassVar[str] = "Model"
    link_kind: ClassVar[LinkKind] = PUBLIC_TOKEN
    refresh_policy: ClassVar[RefreshPolicy | None] = RefreshPolicy(default_lifetime=timedelta(hours=1))

    def __init__(self, books: Books | None = None) -> None:
        self.books = books or Books()
        self.plan = Plan()
        self.asked = 0
        self.served: list[Page] = []

    async def refresh(self, caller: object, refresh_token: str) -> TokenAnswer:
        return TokenAnswer(access_token=f"access-{self.asked}", lifetime=timedelta(hours=1))

    async def aclose(self) -> None:
        return None

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        yield self._serve(request, self._listing())
        base, head, offset = _read_cursor(request.cursors.get("feed"))
        while True:
            self._misbehave()
            if head is not None and head != len(self.books.log):
                raise PagingRestart("mutated", feed="feed")
            if offset and self.plan.restarts:
                self.plan.restarts -= 1
                raise PagingRestart("demanded", feed="feed")
            head = len(self.books.log) if head is None else head
            rows = self.books.difference(base, head)
            part = rows[offset : offset + self.plan.page_size]
            offset += len(part)
            more = offset < len(rows)
            yield self._serve(
                request,
                Page(
                    feed="feed",
                    cursor=f"{base}:{head}:{offset}" if more else f"{head}::0",
                    more=more,
                    transactions=[movement.raw() for _, movement in part if movement is not None],
                    removals=[Removal(key, None) for key, movement in part if movement is None],
                    map_transaction=self._read,
                ),
            )
            if not more:
                break
        self._misbehave()
        yield self._serve(
            request,
            Page(
                feed="account:W",
                cursor=DAY.isoformat(),
                transactions=[movement.raw() for movement in self.books.windowed.values()],
                windows=[Window(WINDOW_ACCOUNT, DAY - timedelta(days=10), DAY)],
                map_transaction=self._read,
            ),
        )

    def _listing(self) -> Page:
        self._misbehave()
        listed = [key for key in ACCOUNTS if key not in self.books.closed]
        return Page(
            accounts=[
                AccountRecord(account_key=key, name=key, type=AccountType.DEPOSITORY, subtype="checking")
                for key in listed
            ],
            accounts_complete=True,
            balances=[BalanceRecord(account_key=key, current=self.balance(key), source="model") for key in listed],
            holdings=[
                HoldingRecord(
                    account_key=account,
                    holding_key=symbol,
                    security=SecurityRecord(key=f"model:{symbol}", type=SecurityType.EQUITY, symbol=symbol),
                    quantity=quantity,
                )
                for (account, symbol), quantity in self.books.holdings.items()
                if account in listed
            ],
            holdings_complete_for=frozenset(listed),
        )

    def balance(self, account: str) -> Decimal:
        rows = [*self.books.live.values(), *self.books.windowed.values()]
        return sum(
            (Decimal(row.amount) for row in rows if row.account == account and row.status == "posted"), Decimal(100)
        )

    def _misbehave(self) -> None:
        asked, self.asked = self.asked, self.asked + 1
        if self.plan.die_before == asked:
            raise Killed
        if asked in self.plan.refuse_access_before:
            raise AccessExpired("model")
        mutate = self.plan.mutate_before.pop(asked, None)
        if mutate is not None:
            mutate()

    def _read(self, raw: RawRecord) -> TransactionRecord:
        if self.plan.die_within is not None and self.asked >= self.plan.die_within:
            raise Killed
        return read_movement(raw)

    def _serve(self, request: SyncRequest, page: Page) -> Page:
        if request.caller.heard is not None:  # as `Api` does with the answer that a page is made of
            answer = repr(replace(page, map_transaction=None)).encode()
            request.caller.heard.note("model", None, 200, answer)
        self.served.append(page)
        return page


def _read_cursor(text: str | None) -> tuple[int, int | None, int]:
    base, head, offset = (text or "0::0").split(":")
    return int(base), int(head) if head else None, int(offset)


def changed(movement: Movement, **changes: str) -> Movement:
    return replace(movement, **changes)


def now() -> datetime:
    return datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
