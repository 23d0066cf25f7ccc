"""Made-up shops, securities and account holders."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from worker.sandbox.ledger import Security
from worker.sandbox.wire import identifier

FIRST_NAMES = ("Ada", "Bram", "Chidi", "Dana", "Elif", "Finn", "Greta", "Hugo", "Ines", "Jun", "Kofi", "Lena")
LAST_NAMES = ("Abbot", "Brook", "Castell", "Doran", "Ekwueme", "Farrow", "Grohl", "Hale", "Iversen", "Jonas")


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop and the spending category that a card network would give it."""

    name: str
    primary: str
    detailed: str
    channel: str


SHOPS = (
    Shop("Corner Grocery", "FOOD_AND_DRINK", "FOOD_AND_DRINK_GROCERIES", "in store"),
    Shop("Bean & Leaf", "FOOD_AND_DRINK", "FOOD_AND_DRINK_COFFEE", "in store"),
    Shop("Noodle Yard", "FOOD_AND_DRINK", "FOOD_AND_DRINK_RESTAURANT", "in store"),
    Shop("Northline Trains", "TRANSPORTATION", "TRANSPORTATION_PUBLIC_TRANSIT", "online"),
    Shop("Pump Nine", "TRANSPORTATION", "TRANSPORTATION_GAS", "in store"),
    Shop("Brightwire Energy", "RENT_AND_UTILITIES", "RENT_AND_UTILITIES_GAS_AND_ELECTRICITY", "online"),
    Shop("Paperback Harbour", "GENERAL_MERCHANDISE", "GENERAL_MERCHANDISE_BOOKSTORES_AND_NEWSSTANDS", "in store"),
    Shop("Everything Depot", "GENERAL_MERCHANDISE", "GENERAL_MERCHANDISE_SUPERSTORES", "in store"),
    Shop("Streamhouse", "ENTERTAINMENT", "ENTERTAINMENT_TV_AND_MOVIES", "online"),
    Shop("Fernhill Pharmacy", "MEDICAL", "MEDICAL_PHARMACIES_AND_SUPPLEMENTS", "in store"),
    Shop("Peak Gym", "PERSONAL_CARE", "PERSONAL_CARE_GYMS_AND_FITNESS_CENTERS", "other"),
    Shop("Café Zoë", "FOOD_AND_DRINK", "FOOD_AND_DRINK_COFFEE", "in store"),
)
SHOP_BY_NAME = {shop.name: shop for shop in SHOPS}

_STOCKS = (("ACME", "Acme Works"), ("BOLT", "Bolt & Nut"), ("CRNE", "Crane Paper"), ("DUNE", "Dune Energy"))
_ETFS = (("WIDE", "Widemarket Index ETF"), ("GLBL", "Global Shares ETF"))
_FUNDS = (("FNDXX", "Steady Growth Fund"), ("BALNX", "Balanced Income Fund"))


def securities(seed: int, today: date) -> dict[str, Security]:
    """The market of one sandbox, by symbol: stocks, funds, a bond, options, a coin and cash."""
    chance = random.Random(f"market-{seed}")  # noqa: S311 - made-up prices that must repeat
    market: dict[str, Security] = {}

    def list_(symbol: str, name: str, kind: str, low: int, high: int, *, cusip: bool = True) -> Security:
        number = len(market) + 1
        security = Security(
            id=identifier(seed, "security", symbol),
            symbol=symbol,
            name=name,
            kind=kind,
            price=Decimal(chance.randint(low * 100, high * 100)).scaleb(-2),
            cusip=f"0000{number:02d}AA{number % 10}" if cusip else None,
        )
        market[symbol] = security
        return security

    for symbol, name in _STOCKS:
        # One stock has no CUSIP, as it may happen with a real provider.
        list_(symbol, name, "equity", 20, 400, cusip=symbol != "DUNE")
    for symbol, name in _ETFS:
        list_(symbol, name, "etf", 40, 300)
    for symbol, name in _FUNDS:
        list_(symbol, name, "mutual_fund", 10, 60)
    list_("TBOND34", "Treasury Bond 4.25% 2034", "fixed_income", 90, 105)
    list_("COIN", "Coinlike", "crypto", 900, 2000, cusip=False)
    month = (today.replace(day=1) + timedelta(days=100)).replace(day=15)
    for right, letter in (("call", "C"), ("put", "P")):
        stock = market["ACME"]
        strike = Decimal(int(stock.price) // 10 * 10 + 10)
        symbol = f"ACME  {month:%y%m%d}{letter}{int(strike * 1000):08d}"
        option = list_(symbol, f"ACME {month:%m/%d/%Y} {strike} {right.title()}", "option", 1, 12, cusip=False)
        option.multiplier, option.underlying, option.strike, option.expires = 100, "ACME", strike, month
        option.right = "call" if right == "call" else "put"
    cash = list_("CUR:USD", "US Dollar", "cash", 1, 1, cusip=False)
    cash.price = Decimal("1.00")
    return market


def person(chance: random.Random) -> str:
    """A full name."""
    return f"{chance.choice(FIRST_NAMES)} {chance.choice(LAST_NAMES)}"
