"""The books of a brokerage login in the words of the Schwab Trader API, and how they change."""

from __future__ import annotations

import random
from datetime import datetime
from decimal import Decimal
from functools import partial

from worker.sandbox.core import Login
from worker.sandbox.ledger import ZERO, Account, Ledger, Security, Transaction
from worker.sandbox.plain_books import hold_some, load_history
from worker.sandbox.wire import cents, digest

TRANSACTION_TYPES = (
    "TRADE",
    "RECEIVE_AND_DELIVER",
    "DIVIDEND_OR_INTEREST",
    "ACH_RECEIPT",
    "ACH_DISBURSEMENT",
    "CASH_RECEIPT",
    "CASH_DISBURSEMENT",
    "ELECTRONIC_FUND",
    "WIRE_OUT",
    "WIRE_IN",
    "JOURNAL",
    "MEMORANDUM",
    "MARGIN_CALL",
    "MONEY_MARKET",
    "SMA_ADJUSTMENT",
)
# The sign of each type's amount: money in, money out, either, or no money.
_SIGN = {
    "ACH_RECEIPT": 1,
    "CASH_RECEIPT": 1,
    "WIRE_IN": 1,
    "ACH_DISBURSEMENT": -1,
    "CASH_DISBURSEMENT": -1,
    "WIRE_OUT": -1,
    "MEMORANDUM": 0,
    "MARGIN_CALL": 0,
    "SMA_ADJUSTMENT": 0,
    "RECEIVE_AND_DELIVER": 0,
}
_WORDS = {
    "RECEIVE_AND_DELIVER": "SECURITY TRANSFER",
    "ACH_RECEIPT": "ACH CREDIT",
    "ACH_DISBURSEMENT": "ACH DEBIT",
    "CASH_RECEIPT": "FUNDS RECEIVED",
    "CASH_DISBURSEMENT": "FUNDS PAID",
    "ELECTRONIC_FUND": "ELECTRONIC FUNDS TRANSFER",
    "WIRE_OUT": "WIRED FUNDS DISBURSED",
    "WIRE_IN": "WIRED FUNDS RECEIVED",
    "JOURNAL": "JOURNALED FUNDS",
    "MEMORANDUM": "MEMO ENTRY",
    "MARGIN_CALL": "MARGIN CALL NOTICE",
    "MONEY_MARKET": "SWEEP",
    "SMA_ADJUSTMENT": "SMA ADJUSTMENT",
}
_POSITIONS = ("equity", "etf", "mutual_fund", "fixed_income", "option")


def hash_value(seed: int, number: str) -> str:
    """The hash that replaces an account number in every path."""
    return digest(seed, "hash", number, size=32).hex().upper()


def furnish(login: Login, market: dict[str, Security]) -> Ledger:
    """A cash and a margin account (or as many as asked), positions of every asset type, history of every type."""
    spec, chance, seed = login.spec, login.random, login.sandbox.seed
    accounts = []
    for index in range(spec.accounts if spec.accounts is not None else 2):
        number = f"{int.from_bytes(digest(seed, login.name, index, size=6), 'big') % 90_000_000 + 10_000_000}"
        margin = index % 2 == 1
        account = Account(
            id=hash_value(seed, number),
            number=number,
            name=f"Brokerage {index + 1}",
            type="investment",
            subtype="brokerage",
            provider_type="MARGIN" if margin else "CASH",
            provider_subtype="",
            opening=Decimal(chance.randint(500_000, 2_000_000)).scaleb(-2),
        )
        accounts.append(account)
    ledger = Ledger(accounts)
    for account in accounts:
        hold_some(login, ledger, account, market, kinds=_POSITIONS, share=0.8, size=partial(_size, account, chance))
    if not accounts or not spec.transactions:
        return ledger

    def past(account: Account, moment: datetime, number: int) -> Transaction:
        # Every published transaction type occurs in a history that is long enough.
        kind = TRANSACTION_TYPES[number // len(accounts) % len(TRANSACTION_TYPES)] if number < 60 else None
        return transaction(login, ledger, market, account, moment, kind=kind, past=True)

    now = load_history(login, ledger, accounts, past)
    for account in accounts:
        recent = transaction(login, ledger, market, account, now, kind="ACH_RECEIPT")
        recent.status = "pending"
        ledger.add(recent)
    return ledger


def _size(account: Account, chance: random.Random, security: Security) -> Decimal:
    quantity = Decimal(chance.randint(1, 8 if security.kind == "option" else 60))
    if security.kind == "option" and account.provider_type == "MARGIN":
        quantity = -quantity
    if security.kind == "mutual_fund":
        quantity += Decimal(chance.randint(1, 9999)).scaleb(-4)
    return quantity


def transaction(
    login: Login,
    ledger: Ledger,
    market: dict[str, Security],
    account: Account,
    moment: datetime,
    *,
    kind: str | None = None,
    past: bool = False,
) -> Transaction:
    """An invented row. A trade that is not `past` also changes the position."""
    chance = login.random
    kind = kind or chance.choices(TRANSACTION_TYPES, weights=(40, 1, 15, 8, 5, 3, 3, 6, 2, 2, 4, 2, 1, 6, 1))[0]
    row = Transaction(
        id=str(70_000_000_000 + login.ordinal * 10_000_000 + ledger.serial()),
        account=account,
        amount=ZERO,
        moment=moment.replace(microsecond=0),
        status="posted",
        kind=kind,
        description=_WORDS.get(kind, ""),
    )
    if kind == "TRADE":
        _trade(row, ledger, market, chance, past=past)
    elif kind == "DIVIDEND_OR_INTEREST":
        row.security = market[chance.choice(("ACME", "WIDE", "FNDXX", "CUR:USD"))]
        row.subtype = "interest" if row.security.kind == "cash" else "dividend"
        row.description = "CREDIT INTEREST" if row.security.kind == "cash" else f"{row.security.symbol} CASH DIVIDEND"
        row.amount = Decimal(chance.randint(1, 20_000)).scaleb(-2)
    elif kind == "RECEIVE_AND_DELIVER":
        row.security = market["BOLT"]
        row.quantity = Decimal(chance.randint(1, 5))
        row.price = row.security.price
        if not past:
            ledger.trade(account, row.security, row.quantity, row.price)
    else:
        sign = _SIGN.get(kind, chance.choice((1, -1)))
        row.amount = sign * Decimal(chance.randint(100, 300_000)).scaleb(-2)
    return row


def _trade(row: Transaction, ledger: Ledger, market: dict[str, Security], chance: random.Random, *, past: bool) -> None:
    security = chance.choice([market[name] for name in market if market[name].kind in _POSITIONS])
    held = row.account.holdings.get(security.id)
    size = Decimal(chance.randint(1, 5))
    selling = chance.random() < 0.4
    if not past and held is not None:
        selling = selling and held.quantity > size
    elif not past:
        selling = False
    row.security, row.price = security, security.price
    row.quantity = -size if selling else size
    row.subtype = "CLOSING" if selling else "OPENING"
    row.fees = Decimal("0.66") if security.kind == "option" else ZERO
    row.amount = cents(-row.quantity * row.price * security.multiplier) - row.fees
    if not past:
        ledger.trade(row.account, security, row.quantity, row.price)


def step(login: Login, market: dict[str, Security], moment: datetime) -> None:
    """Adds rows to some accounts, posts a pending one (most keep their id), and sometimes corrects a row."""
    chance, ledger = login.random, login.ledger
    for account in ledger.open_accounts():
        pending = [row for row in account.by_time[-200:] if row.status == "pending"]
        for row in pending:
            fate = chance.random()
            if fate < 0.35:
                ledger.modify(row, status="posted")
            elif fate < 0.5:
                posted = transaction(login, ledger, market, account, moment, kind=row.kind)
                posted.amount = row.amount
                ledger.post(row, posted, removal_first=True)
        if chance.random() < 0.7:
            row = transaction(login, ledger, market, account, moment)
            if row.kind != "TRADE" and row.security is None and chance.random() < 0.4:
                row.status = "pending"
            ledger.add(row)
        if chance.random() < 0.1:
            row = transaction(login, ledger, market, account, moment, kind="JOURNAL")
            row.correction = True
            ledger.add(row)
