"""The books of a Plaid Item: bank, card, loan and investment accounts, and how they move."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from worker.sandbox.core import Login
from worker.sandbox.ledger import ZERO, Account, Ledger, Security, Transaction
from worker.sandbox.people import SHOPS
from worker.sandbox.wire import cents, identifier


@dataclass(frozen=True, slots=True)
class _Kind:
    """One account type as Plaid spells it, and our word for its subtype; `opening` is a range in cents."""

    name: str
    type: str
    subtype: str
    ours: str
    opening: tuple[int, int]


_KINDS = (
    _Kind("Everyday Checking", "depository", "checking", "checking", (100_000, 500_000)),
    _Kind("Rewards Card", "credit", "credit card", "credit_card", (-200_000, -10_000)),
    _Kind("Brokerage", "investment", "brokerage", "brokerage", (50_000, 300_000)),
    _Kind("Rainy Day Savings", "depository", "savings", "savings", (500_000, 3_000_000)),
    _Kind("Student Loan", "loan", "student", "student", (-3_000_000, -900_000)),
    _Kind("Roth IRA", "investment", "roth", "roth_ira", (10_000, 90_000)),
    _Kind("Money Market", "depository", "money market", "money_market", (100_000, 900_000)),
    _Kind("Certificate", "depository", "cd", "cd", (100_000, 900_000)),
    _Kind("Mortgage", "loan", "mortgage", "mortgage", (-40_000_000, -9_000_000)),
    _Kind("Employer Plan", "investment", "401k", "401k", (10_000, 50_000)),
    _Kind("Health Savings", "depository", "hsa", "hsa", (10_000, 90_000)),
    _Kind("College Plan", "investment", "529", "529", (10_000, 50_000)),
    _Kind("Cash Management", "depository", "cash management", "cash_management", (10_000, 90_000)),
    _Kind("Home Equity", "loan", "home equity", "home_equity", (-5_000_000, -900_000)),
    _Kind("Auto Loan", "loan", "auto", "auto", (-3_000_000, -100_000)),
)
_USUAL = 6

# Types whose movements are in the transactions feed; the provider leaves other loans and investments out of it.
_FEED_TYPES = ("depository", "credit")
_INVESTMENT_KINDS = (
    ("buy", "buy"),
    ("sell", "sell"),
    ("cash", "dividend"),
    ("cash", "interest"),
    ("cash", "deposit"),
    ("cash", "withdrawal"),
    ("fee", "account fee"),
    ("cash", "contribution"),
    ("buy", "dividend reinvestment"),
    ("fee", "margin expense"),
    ("transfer", "transfer"),
)
_HELD = ("equity", "etf", "mutual_fund", "fixed_income", "option", "crypto")


def in_feed(account: Account) -> bool:
    """Whether an account's movements are listed by the transactions feed."""
    return account.provider_type in _FEED_TYPES or account.provider_subtype == "student"


def furnish(login: Login, market: dict[str, Security]) -> Ledger:
    """The usual six accounts (or as many as asked), positions, history and a few pending rows."""
    accounts = _accounts(login)
    ledger = Ledger(accounts)
    for account in accounts:
        if account.type == "investment":
            _fill(account, login, ledger, market)
    midnight = login.sandbox.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    moving = [account for account in accounts if in_feed(account) or account.type == "investment"]
    if not moving or not login.spec.transactions:
        return ledger
    history = []
    for index in range(login.spec.transactions):
        back = timedelta(seconds=login.random.randint(1, login.spec.history_days * 86_400))
        history.append(transaction(login, ledger, market, moving[index % len(moving)], midnight - back, past=True))
    ledger.load(history)
    for account in accounts:
        if account.provider_type in _FEED_TYPES:
            for _ in range(2):
                row = transaction(login, ledger, market, account, midnight)
                row.status = "pending"
                ledger.add(row)
    return ledger


def _accounts(login: Login) -> list[Account]:
    accounts = []
    for index in range(login.spec.accounts if login.spec.accounts is not None else _USUAL):
        kind = _KINDS[index % len(_KINDS)]
        account = Account(
            id=identifier(login.sandbox.seed, login.name, "account", index),
            number=f"{login.random.randint(0, 9999):04d}",
            name=kind.name if index < len(_KINDS) else f"{kind.name} {index + 1}",
            type=kind.type,
            subtype=kind.ours,
            provider_type=kind.type,
            provider_subtype=kind.subtype,
            opening=Decimal(login.random.randint(*kind.opening)).scaleb(-2),
            limit=Decimal("15000.00") if kind.type == "credit" else None,
        )
        accounts.append(account)
    return accounts


def _fill(account: Account, login: Login, ledger: Ledger, market: dict[str, Security]) -> None:
    chance = login.random
    for security in market.values():
        if security.kind in _HELD and chance.random() < 0.6:
            size = Decimal(chance.randint(1, 40))
            if security.kind in ("mutual_fund", "crypto"):
                size += Decimal(chance.randint(1, 9999)).scaleb(-4)
            ledger.trade(account, security, size, cents(security.price * chance.randint(80, 115) / 100))


def transaction(
    login: Login, ledger: Ledger, market: dict[str, Security], account: Account, moment: datetime, *, past: bool = False
) -> Transaction:
    """A made-up row; an investment trade that is not past moves the position too."""
    row = Transaction(
        id=identifier(login.sandbox.seed, login.name, "transaction", ledger.serial()),
        account=account,
        amount=ZERO,
        moment=moment.replace(microsecond=0),
        status="posted",
        kind="purchase",
        description="",
    )
    if account.type == "investment":
        _investment(row, login, ledger, market, past=past)
        return row
    chance = login.random
    if account.type == "loan":
        row.kind, row.description = "payment", "LOAN PAYMENT"
        row.amount = Decimal(chance.randint(5_000, 60_000)).scaleb(-2)
    elif chance.random() < 0.15:
        card = account.type == "credit"
        row.kind, row.description = ("payment", "AUTOPAY THANK YOU") if card else ("transfer", "PAYROLL DIRECT DEP")
        row.amount = Decimal(chance.randint(5_000, 90_000) if card else chance.randint(50_000, 400_000)).scaleb(-2)
    else:
        shop = chance.choice(SHOPS)
        row.merchant = shop.name
        row.description = f"{shop.name.upper()} {chance.randint(1, 400)}"
        row.amount = -Decimal(chance.randint(150, 25_000)).scaleb(-2)
    return row


def _investment(row: Transaction, login: Login, ledger: Ledger, market: dict[str, Security], *, past: bool) -> None:
    chance = login.random
    row.kind, row.subtype = chance.choice(_INVESTMENT_KINDS)
    money = Decimal(chance.randint(100, 50_000)).scaleb(-2)
    if row.kind in ("buy", "sell"):
        security = market[chance.choice(("ACME", "BOLT", "CRNE", "WIDE", "FNDXX"))]
        held = row.account.holdings.get(security.id)
        size = Decimal(chance.randint(1, 5))
        if row.kind == "sell" and not past and (held is None or held.quantity <= size):
            row.kind, row.subtype = "buy", "buy"
        row.security, row.price, row.fees = security, security.price, Decimal("1.25")
        row.quantity = size if row.kind == "buy" else -size
        row.amount = cents(-row.quantity * row.price) - row.fees
        row.description = f"{row.kind.upper()} {security.name}"
        if not past:
            ledger.trade(row.account, security, row.quantity, row.price)
        return
    row.description = row.subtype.upper()
    outward = row.kind == "fee" or row.subtype == "withdrawal"
    row.amount = -money if outward else money
    if row.kind == "fee":
        row.fees = money
    if row.subtype == "dividend":
        row.security = market["ACME"]


def step(login: Login, market: dict[str, Security], moment: datetime) -> None:
    """New rows, pending ones posted under a new id, now and then a changed or a withdrawn row."""
    chance, ledger = login.random, login.ledger
    for account in ledger.open_accounts():
        investing = account.type == "investment"
        if not investing and not in_feed(account):
            continue
        for row in [row for row in account.by_time[-50:] if row.status == "pending"]:
            fate = chance.random()
            if fate < 0.4:
                posted = transaction(login, ledger, market, account, moment)
                posted.merchant, posted.description, posted.kind = row.merchant, row.description, row.kind
                # A tip or a fuel hold: the posted amount may differ.
                posted.amount = cents(row.amount * Decimal("1.15")) if chance.random() < 0.2 else row.amount
                ledger.post(row, posted, removal_first=chance.random() < 0.5)
            elif fate < 0.45:
                ledger.remove(row)
        for _ in range(chance.choice((0, 1, 1, 2))):
            row = transaction(login, ledger, market, account, moment)
            if account.provider_type in _FEED_TYPES and chance.random() < 0.6:
                row.status = "pending"
            ledger.add(row)
        if not investing and account.by_time and chance.random() < 0.2:
            row = chance.choice(account.by_time[-30:])
            ledger.modify(row, description=_reworded(row.description))


def _reworded(description: str) -> str:
    return description.removesuffix(" *") if description.endswith(" *") else description + " *"
