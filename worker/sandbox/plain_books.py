"""Made-up books of bank accounts and cards, and how they change: the default books of a stand-in.

A stand-in with other accounts overrides `kinds`, and `row` for the transactions in them. With `load_history` and
`hold_some`, a stand-in can make completely different books.
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
        name: The bank's name for it.
        type: Our word for the type; most providers use the same.
        subtype: Our word for the subtype.
        opening: Range of the first balance, in cents.
        spelled: The provider's word for the subtype, if it differs from ours.
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
    """Books with wages, purchases and payments, some of which are pending at first.

    Attributes:
        kinds: The kinds of a login's accounts, in order; a login with more accounts starts again at the first kind.
        usual: How many accounts a login has if no number is given.
    """

    kinds: ClassVar[tuple[Kind, ...]] = BANK
    usual: ClassVar[int] = len(BANK)

    def moves(self, account: Account) -> bool:
        """Whether this account gets transactions."""
        return True

    def may_pend(self, account: Account) -> bool:
        """Whether rows of this account may be pending at first."""
        return account.type in ("depository", "credit")

    def fill(self, login: Login, ledger: Ledger, account: Account) -> None:
        """Adds the first positions to an account; bank accounts have none."""

    def furnish(self, login: Login) -> Ledger:
        """Makes the usual accounts (or the given number), their history and a few pending rows."""
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
        """A realistic posted row that is not in the books yet."""
        return self.row(login, login.ledger, account, moment)

    def row(
        self, login: Login, ledger: Ledger, account: Account, moment: datetime, *, past: bool = False
    ) -> Transaction:
        """A made-up posted row; with `past` it is history and changes no position."""
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
        """Adds rows, posts pending ones under a new id, and sometimes changes or withdraws a row."""
        chance, ledger = login.random, login.ledger
        for account in ledger.open_accounts():
            if not self.moves(account):
                continue
            for row in [row for row in account.by_time[-50:] if row.status == "pending"]:
                fate = chance.random()
                if fate < 0.4:
                    posted = self.row(login, ledger, account, moment)
                    posted.merchant, posted.description, posted.kind = row.merchant, row.description, row.kind
                    # With tips and fuel, the posted amount may differ from the pending one.
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
    """Fills the accounts with the login's number of rows, spread over its days of history.

    Args:
        login: The login.
        ledger: Its books.
        accounts: The accounts that get rows, in turn.
        make: Makes a row from its account, its time and its running number.

    Returns:
        The midnight at which the history ends.
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
    """Gives an account positions that were bought a little above or below today's price.

    Args:
        login: The login.
        ledger: Its books.
        account: The account.
        market: Securities by symbol.
        kinds: Kinds of securities to choose from.
        share: The share of these securities that the account holds.
        size: Units of a position; negative for a short position.
    """
    chance = login.random
    for security in market.values():
        if security.kind in kinds and chance.random() < share:
            ledger.trade(account, security, size(security), cents(security.price * chance.randint(80, 115) / 100))


def _reworded(description: str) -> str:
    return description.removesuffix(" *") if description.endswith(" *") else description + " *"
