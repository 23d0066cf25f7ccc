"""Stored rows for the owner of an API key: a limited number at a time, with a cursor to the next ones."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec

from worker.crud.database import OpenTransaction
from worker.crud.fleet import history, reading
from worker.errors import BadArgument, NotFound
from worker.models.reading import (
    AccountSlice,
    BalanceDaySlice,
    BalanceSlice,
    HoldingSlice,
    LiabilitySlice,
    MovementSlice,
    RunRow,
    RunSlice,
    Slice,
    Wanted,
    WantedAccounts,
    WantedDays,
    WantedTransactions,
)
from worker.models.vocabulary import RunStatus
from worker.services.access.keys import Principal
from worker.services.access.logins import require_own
from worker.services.context import Context

T = TypeVar("T")


async def accounts(runtime: Context, principal: Principal, wanted: WantedAccounts) -> AccountSlice:
    """Accounts with their newest balances.

    Raises:
        NotFound, NotPermitted: the wanted login or account does not exist, or belongs to another user.
        BadArgument: the cursor was not made by this API.
    """
    after = _read(wanted.cursor, UUID)

    def read(session: OpenTransaction) -> AccountSlice:
        _require_own(session, principal, wanted)
        found = reading.accounts(session, user_id=principal.user_id, wanted=wanted, after=after)
        return _cut(found, wanted, lambda row: row.id)

    return await runtime.db(read)


async def balances(runtime: Context, principal: Principal, wanted: WantedDays) -> BalanceSlice:
    """Balances as the providers stated them, newest first. Raises what `accounts` raises."""
    query = partial(reading.balances, wanted=wanted)
    kind = tuple[Annotated[datetime, msgspec.Meta(tz=True)], UUID]
    return await _of_accounts(runtime, principal, wanted, query, kind, lambda row: (row.taken_at, row.id))


async def balance_days(runtime: Context, principal: Principal, wanted: WantedDays) -> BalanceDaySlice:
    """Balances by day, newest first. Raises what `accounts` raises."""
    query = partial(reading.balance_days, wanted=wanted)
    kind = tuple[date, UUID]
    return await _of_accounts(runtime, principal, wanted, query, kind, lambda row: (row.day, row.account_id))


async def holdings(runtime: Context, principal: Principal, wanted: Wanted) -> HoldingSlice:
    """Open positions. Raises what `accounts` raises."""
    query = partial(reading.holdings, limit=wanted.limit)
    return await _of_accounts(runtime, principal, wanted, query, UUID, lambda row: row.id)


async def liabilities(runtime: Context, principal: Principal, wanted: Wanted) -> LiabilitySlice:
    """Open liabilities. Raises what `accounts` raises."""
    query = partial(reading.liabilities, limit=wanted.limit)
    return await _of_accounts(runtime, principal, wanted, query, UUID, lambda row: row.id)


async def transactions(runtime: Context, principal: Principal, wanted: WantedTransactions) -> MovementSlice:
    """Transactions, newest first. Raises what `accounts` raises."""
    query = partial(reading.transactions, wanted=wanted)
    kind = tuple[date, UUID]
    return await _of_accounts(runtime, principal, wanted, query, kind, lambda row: (row.posted_date, row.id))


async def _of_accounts(
    runtime: Context,
    principal: Principal,
    wanted: Wanted,
    query: Callable[..., list[T]],
    kind: Any,
    position: Callable[[T], Any],
) -> Slice[T]:
    """Runs `query` for the wanted accounts. The cursor is made from the last row's `position`, of type `kind`."""
    after = _read(wanted.cursor, kind)

    def read(session: OpenTransaction) -> Slice[T]:
        ids = _account_ids(session, principal, wanted)
        return _cut(query(session, account_ids=ids, after=after), wanted, position)

    return await runtime.db(read)


async def runs(
    runtime: Context, principal: Principal, provider_id: UUID, *, status: RunStatus | None, limit: int
) -> RunSlice:
    """The newest sync runs of a login. Raises what `logins.own` raises."""

    def read(session: OpenTransaction) -> RunSlice:
        require_own(session, principal, provider_id)
        found = history.runs(session, provider_ids=[provider_id], status=status, limit=limit)
        return Slice([RunRow(*(getattr(run, name) for name in RunRow.__slots__)) for run in found], None)

    return await runtime.db(read)


def _require_own(session: OpenTransaction, principal: Principal, wanted: Wanted) -> None:
    if wanted.provider_id is not None:
        require_own(session, principal, wanted.provider_id)
    if wanted.account_id is not None:
        provider_id = reading.provider_of(session, account_id=wanted.account_id)
        if provider_id is None:
            raise NotFound(f"no account has the id {wanted.account_id}")
        require_own(session, principal, provider_id)


def _account_ids(session: OpenTransaction, principal: Principal, wanted: Wanted) -> Sequence[UUID]:
    _require_own(session, principal, wanted)
    if principal.user_id is None and wanted.provider_id is None and wanted.account_id is None:
        raise BadArgument("an operator's key sees everybody's rows: say which, with provider_id or account_id")
    ids = reading.account_ids(session, user_id=principal.user_id, provider_id=wanted.provider_id)
    return ids if wanted.account_id is None else [id_ for id_ in ids if id_ == wanted.account_id]


def _cut(rows: list[T], wanted: Wanted, position: Callable[[T], Any]) -> Slice[T]:
    """The rows up to the wanted limit. There is a cursor when the query found one row more."""
    if len(rows) <= wanted.limit:
        return Slice(rows, None)
    kept = rows[: wanted.limit]
    return Slice(kept, base64.urlsafe_b64encode(msgspec.json.encode(position(kept[-1]))).decode().rstrip("="))


def _read(cursor: str | None, kind: Any) -> Any:
    """The position in a cursor. A cursor grants no access: every query is limited to the caller's own rows."""
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=kind)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise BadArgument("this cursor is not valid; leave it out to start from the beginning") from None
