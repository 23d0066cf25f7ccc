"""Shows the provider's books in our own vocabulary, and changes them for tests."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any, Literal

import msgspec

from worker.sandbox.core import Login
from worker.sandbox.ledger import Account, Holding, Security, Transaction


class Mutation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One change of a login's books.

    Attributes:
        op: `add`, `modify`, `remove` and `post` change transactions (`post` replaces the pending row by a new one, or
            with `keep_id` changes the same row); `repeat` lists a row again unchanged; `verbatim` sends `record`
            unchanged in the list of `target`, outside the books; `ghost_removal` announces the removal of an id that
            never existed; `close_account` and `open_account` make an account disappear and come back; `hold` sets a
            position.
        account: Provider's account id; the first open account if left out.
        amount: Decimal text; positive is money into the account.
        date: Posting date, `YYYY-MM-DD`.
        record, record_base64: The record's JSON text, or its bytes if they are not valid text.
    """

    op: Literal[
        "add",
        "modify",
        "remove",
        "post",
        "repeat",
        "verbatim",
        "ghost_removal",
        "close_account",
        "open_account",
        "hold",
    ]
    id: str = ""
    account: str = ""
    amount: str | None = None
    date: str | None = None
    description: str | None = None
    status: Literal["pending", "posted"] | None = None
    keep_id: bool = False
    removal_first: bool = True
    target: Literal["transaction", "account", "holding"] = "transaction"
    record: str = ""
    record_base64: str = ""
    symbol: str = ""
    quantity: str = "0"


def login_books(login: Login) -> dict[str, Any]:
    """Everything that a client can learn about a login.

    Amounts are decimal text; positive is money into the account. A balance is negative for a debt. A holding's quantity
    counts units, for options contracts; `market_value` includes the `multiplier`. `cash` is the part of an account's
    `current` that is not in positions.
    """
    ledger = login.ledger
    accounts = ledger.open_accounts()
    return {
        "login": login.name,
        "profile": login.profile.key,
        "visible_from": login.visible_from,
        "accounts": [
            {
                "provider_account_id": account.id,
                "name": account.name,
                "type": account.type,
                "subtype": account.subtype,
                "provider_type": account.provider_type,
                "current": str(account.current),
                "cash": str(account.cash),
                "currency": account.currency,
            }
            for account in accounts
        ],
        "transactions": [
            {
                "id": row.id,
                "account": account.id,
                "amount": str(row.amount),
                "status": row.status,
                "date": row.date,
                "replaces": row.replaces,
                "description": row.description,
            }
            for account in accounts
            for row in account.by_time
            if login.visible(row) or account.type == "investment"
        ],
        "holdings": [
            {
                "account": account.id,
                "symbol": held.security.symbol,
                "type": held.security.kind,
                "quantity": str(held.quantity),
                "multiplier": held.security.multiplier,
                "market_value": str(held.market_value),
            }
            for account in accounts
            for held in _positions(login, account)
        ],
    }


def _positions(login: Login, account: Account) -> list[Holding]:
    held = list(account.holdings.values())
    if login.profile.cash_is_a_holding and account.type == "investment":
        cash = Security(id="", symbol="CUR:USD", name="US Dollar", kind="cash", price=Decimal("1.00"))
        held.append(Holding(cash, account.cash, cash.price))
    return held


def served(login: Login) -> dict[str, int]:
    """How many distinct things the login's client has received, without those removed later; `rows` counts repeats."""
    told = login.served
    return {
        "accounts": len(told.accounts),
        "transactions": len(told.transactions),
        "holdings": len(told.holdings),
        "rows": told.rows,
        "requests": told.requests,
    }


def mutate(login: Login, body: bytes) -> list[str]:
    """Applies a JSON list of mutations in order.

    Returns:
        One id for each mutation: of the transaction, or of the account if the mutation changes no transaction.

    Raises:
        msgspec.MsgspecError: The body is not a list of mutations; nothing was changed.
        KeyError: An id is unknown; the mutations before it were applied.
        ValueError: A number or a date is malformed; the mutations before it were applied.
    """
    return [_apply(login, mutation) for mutation in msgspec.json.decode(body, type=list[Mutation])]


def _apply(login: Login, given: Mutation) -> str:
    ledger = login.ledger
    match given.op:
        case "add":
            row = _new_row(login, _account(login, given), given)
            ledger.add(row)
            return row.id
        case "modify":
            row = ledger.transactions[given.id]
            ledger.modify(
                row,
                amount=_amount(given),
                description=given.description,
                moment=_moment(given, row.moment),
                status=given.status,
            )
            return row.id
        case "remove":
            ledger.remove(ledger.transactions[given.id])
            return given.id
        case "post":
            return _post(login, ledger.transactions[given.id], given)
        case "repeat":
            ledger.repeat(ledger.transactions[given.id])
            return given.id
        case "ghost_removal":
            ledger.announce_removal(_account(login, given).id, given.id)
            return given.id
        case "verbatim":
            return _verbatim(login, given)
        case _:
            return _change_account(login, given)


def _change_account(login: Login, given: Mutation) -> str:
    account = login.ledger.accounts[given.account] if given.account else _account(login, given)
    if given.op == "hold":
        known = {h.security.symbol: h.security for a in login.ledger.accounts.values() for h in a.holdings.values()}
        security = known[given.symbol]
        held = account.holdings.get(security.id)
        change = Decimal(given.quantity) - (held.quantity if held else 0)
        if change:
            login.ledger.trade(account, security, change, security.price)
    else:
        account.closed = given.op == "close_account"
    return account.id


def _verbatim(login: Login, given: Mutation) -> str:
    record = base64.b64decode(given.record_base64) if given.record_base64 else given.record.encode()
    account = _account(login, given)
    if given.target == "account":
        login.ledger.verbatim_accounts.append(record)
    elif given.target == "holding":
        account.verbatim_holdings.append(record)
    else:
        login.ledger.insert_verbatim(account, record)
    return account.id


def _post(login: Login, row: Transaction, given: Mutation) -> str:
    amount = _amount(given)
    if given.keep_id:
        login.ledger.modify(row, amount=amount, status="posted", moment=_moment(given, row.moment))
        return row.id
    posted = _new_row(login, row.account, given)
    posted.amount = row.amount if amount is None else amount
    posted.description = given.description or row.description
    posted.kind, posted.merchant, posted.status = row.kind, row.merchant, "posted"
    if given.date is None:
        posted.moment = row.moment
    login.ledger.post(row, posted, removal_first=given.removal_first)
    return posted.id


def _new_row(login: Login, account: Account, given: Mutation) -> Transaction:
    moment = _moment(given, None) or login.sandbox.clock.now().replace(microsecond=0)
    row = login.profile.transaction(login, account, moment)
    if given.id and given.op == "add":
        row.id = given.id
    amount = _amount(given)
    if amount is not None:
        row.amount = amount
    if given.description is not None:
        row.description = given.description
    if given.status is not None:
        row.status = given.status
    return row


def _account(login: Login, given: Mutation) -> Account:
    if given.account:
        return login.ledger.accounts[given.account]
    return login.ledger.open_accounts()[0]


def _amount(given: Mutation) -> Decimal | None:
    if given.amount is None:
        return None
    amount = Decimal(given.amount)
    if not amount.is_finite():
        raise ValueError("amount must be finite; say odd ones with op verbatim")
    return amount


def _moment(given: Mutation, current: datetime | None) -> datetime | None:
    if given.date is None:
        return None
    day = datetime.fromisoformat(given.date).date()
    return datetime.combine(day, current.timetz() if current else time(12, tzinfo=UTC))
