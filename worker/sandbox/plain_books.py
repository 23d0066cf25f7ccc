"""Made-up books of people's accounts, and how they move: what a stand-in has unless its provider needs other words.

`PlainBooks` keeps bank accounts and cards. A provider with other accounts overrides `kinds`, and `row` for what moves
in them; `load_history` and `hold_some` help to make books that are wholly its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import ClassVar

from worker.sandbox.core import Login, Profile
from worker.sandbox.ledger import ZERO, Account, Ledger, Security, Transaction
from worker.sandbox.people import SHOPS
from worker.sandbox.wire import cents, identifier

_CARD_LIMIT = Decimal("15000.00")
_PENDING = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of account.

    Attributes:
        name: What the bank calls it.
        type: Our word, which most providers use too.
        subtype: Our word.
        opening: Range of the first balance, in cents.
        spelled: The provider's word for the subtype, when it is another.
    """

    name: str
    type: str
    subtype: str
    opening: tuple[int, int]
    spelled: str = ""


BANK = (
    Kind("Everyday Checking", "depository", "checking", (100_000, 500_000)),
    Kind("Rewards Card", "credit", "credit_card", (-200_000, -10_000), "credit card"),
    Kind("Rainy Day Savings", "depository", "savings", (500_000, 3_000_000)),
)


class PlainBooks(Profile):
    """Books with wages, purchases and payments, pending ones first.

    Attributes:
        kinds: The accounts of a login, in order; again from the beginning for a login that has more.
        usual: How many accounts a login has unless it is told.
    """

    kinds: ClassVar[tuple[Kind, ...]] = BANK
    usual: ClassVar[int] = len(BANK)

    def moves(self, account: Account) -> bool:
        """Whether rows are made for this account."""
        return True

    def may_pend(self, account: Account) -> bool:
        """Whether rows of this account may be pending first."""
        return account.type in ("depository", "credit")

    def fill(self, login: Login, ledger: Ledger, account: Account) -> None:
        """Put the first positions into an account; banks have none."""

    def furnish(self, login: Login) -> Ledger:
        """The usual accounts (or as many as asked), history and a few pending rows."""
        accounts = self._accounts(login)
        ledger = Ledger(accounts)
        for account in accounts:
            self.fill(login, ledger, account)
        moving = [account for account in accounts if self.moves(account)]
        if not moving or not login.spec.transactions:
            return ledger

        def past(account: Account, moment: datetime, number: int) -> Transaction:
            return self.row(login, ledger, account, moment, past=True)

        midnight = load_history(login, ledger, moving, past)
        for account in accounts:
            if self.may_pend(account):
                for _ in range(_PENDING):
                    row = self.row(login, ledger, account, midnight)
                    row.status = "pending"
                    ledger.add(row)
        return ledger

    def _accounts(self, login: Login) -> list[Account]:
        accounts = []
        for index in range(login.spec.accounts if login.spec.accounts is not None else self.usual):
            kind = self.kinds[index % len(self.kinds)]
            account = Account(
                id=identifier(login.sandbox.seed, login.name, "account", index),
                number=f"{login.random.randint(0, 9999):04d}",
                name=kind.name if index < len(self.kinds) else f"{kind.name} {index + 1}",
                type=kind.type,
                subtype=kind.subtype,
                provider_type=kind.type,
                provider_subtype=kind.spelled or kind.subtype,
                opening=Decimal(login.random.randint(*kind.opening)).scaleb(-2),
                limit=_CARD_LIMIT if kind.type == "credit" else None,
            )
            accounts.append(account)
        return accounts

    def transaction(self, login: Login, account: Account, moment: datetime) -> Transaction:
        """A plausible posted row, not yet in the books."""
        return self.row(login, login.ledger, account, moment)

    def row(
        self, login: Login, ledger: Ledger, account: Account, moment: datetime, *, past: bool = False
    ) -> Transaction:
        """A made-up posted row; `past` says that it is history, and moves no position."""
        chance = login.random
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
            return row
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

    def move(self, login: Login, moment: datetime) -> None:
        """New rows, pending ones posted under a new id, now and then a changed or a withdrawn row."""
        chance, ledger = login.random, login.ledger
        for account in ledger.open_accounts():
            if not self.moves(account):
                continue
            for row in [row for row in account.by_time[-50:] if row.status == "pending"]:
                fate = chance.random()
                if fate < 0.4:
                    posted = self.row(login, ledger, account, moment)
                    posted.merchant, posted.description, posted.kind = row.merchant, row.description, row.kind
                    # A tip or a fuel hold: the posted amount may differ.
                    posted.amount = cents(row.amount * Decimal("1.15")) if chance.random() < 0.2 else row.amount
                    ledger.post(row, posted, removal_first=chance.random() < 0.5)
                elif fate < 0.45:
                    ledger.remove(row)
            for _ in range(chance.choice((0, 1, 1, 2))):
                row = self.row(login, ledger, account, moment)
                if self.may_pend(account) and chance.random() < 0.6:
                    row.status = "pending"
                ledger.add(row)
            if account.type != "investment" and account.by_time and chance.random() < 0.2:
                row = chance.choice(account.by_time[-30:])
                ledger.modify(row, description=_reworded(row.description))


def load_history(
    login: Login,
    ledger: Ledger,
    accounts: list[Account],
    make: Callable[[Account, datetime, int], Transaction],
) -> datetime:
    """Fill the accounts with as many rows as the login is to have, spread over its days of history.

    Args:
        login: Whose.
        ledger: Its books.
        accounts: Which get rows, in turn.
        make: A row from its account, its moment and its running number.

    Returns:
        The midnight before which the history lies.
    """
    midnight = login.sandbox.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    history = []
    for number in range(login.spec.transactions):
        back = timedelta(seconds=login.random.randint(1, login.spec.history_days * 86_400))
        history.append(make(accounts[number % len(accounts)], midnight - back, number))
    ledger.load(history)
    return midnight


def hold_some(
    login: Login,
    ledger: Ledger,
    account: Account,
    market: Mapping[str, Security],
    *,
    kinds: Collection[str],
    share: float,
    size: Callable[[Security], Decimal],
) -> None:
    """Give an account positions, bought a little above or below today's price.

    Args:
        login: Whose.
        ledger: Its books.
        account: Which account.
        market: Securities by symbol.
        kinds: Which kinds of security.
        share: Of them, how many the account holds.
        size: Units of a position, negative when short.
    """
    chance = login.random
    for security in market.values():
        if security.kind in kinds and chance.random() < share:
            ledger.trade(account, security, size(security), cents(security.price * chance.randint(80, 115) / 100))


def _reworded(description: str) -> str:
    return description.removesuffix(" *") if description.endswith(" *") else description + " *"
