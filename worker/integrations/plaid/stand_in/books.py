"""The accounts of a Plaid Item in Plaid's words, and the transactions of its investment accounts."""

from __future__ import annotations

from decimal import Decimal

from worker.sandbox.core import Login
from worker.sandbox.ledger import Account, Ledger, Security, Transaction
from worker.sandbox.plain_books import Kind, hold_some
from worker.sandbox.wire import cents

KINDS = (
    Kind("Everyday Checking", "depository", "checking", (100_000, 500_000)),
    Kind("Rewards Card", "credit", "credit_card", (-200_000, -10_000), "credit card"),
    Kind("Brokerage", "investment", "brokerage", (50_000, 300_000)),
    Kind("Rainy Day Savings", "depository", "savings", (500_000, 3_000_000)),
    Kind("Student Loan", "loan", "student", (-3_000_000, -900_000)),
    Kind("Roth IRA", "investment", "roth_ira", (10_000, 90_000), "roth"),
    Kind("Money Market", "depository", "money_market", (100_000, 900_000), "money market"),
    Kind("Certificate", "depository", "cd", (100_000, 900_000)),
    Kind("Mortgage", "loan", "mortgage", (-40_000_000, -9_000_000)),
    Kind("Employer Plan", "investment", "401k", (10_000, 50_000)),
    Kind("Health Savings", "depository", "hsa", (10_000, 90_000)),
    Kind("College Plan", "investment", "529", (10_000, 50_000)),
    Kind("Cash Management", "depository", "cash_management", (10_000, 90_000), "cash management"),
    Kind("Home Equity", "loan", "home_equity", (-5_000_000, -900_000), "home equity"),
    Kind("Auto Loan", "loan", "auto", (-3_000_000, -100_000)),
)
USUAL = 6

# Account types whose transactions are in the transactions feed. Plaid leaves out investments, and loans except student
# loans.
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
    """Whether the transactions feed lists an account's transactions."""
    return account.provider_type in _FEED_TYPES or account.provider_subtype == "student"


def fill(account: Account, login: Login, ledger: Ledger, market: dict[str, Security]) -> None:
    """Adds the first positions of an investment account."""
    chance = login.random

    def size(security: Security) -> Decimal:
        whole = Decimal(chance.randint(1, 40))
        if security.kind in ("mutual_fund", "crypto"):
            whole += Decimal(chance.randint(1, 9999)).scaleb(-4)
        return whole

    hold_some(login, ledger, account, market, kinds=_HELD, share=0.6, size=size)


def investment(row: Transaction, login: Login, ledger: Ledger, market: dict[str, Security], *, past: bool) -> None:
    """Turns a row into one of an investment account. A trade that is not `past` also changes the position."""
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
